from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from calyx.shared.models.per_record.convolutions import convolution_gradients
from calyx.shared.models.per_record.ghost_lstm import lstm_gradients
from calyx.shared.models.per_record.layer_gradients import LayerGradients, OuterProducts
from calyx.shared.models.per_record.outer_products import (
    linear_gradients,
)
from calyx.shared.models.recurrent import SequenceLSTM

sizes = st.integers(1, 6)


def _agrees_with_autograd(
    layer: nn.Module, parts: Sequence[LayerGradients], x: torch.Tensor, upstream: torch.Tensor
) -> None:
    """Norms and weighted sums of `parts` are those of one autograd call a record."""
    parameters = list(layer.parameters())
    each = [
        torch.autograd.grad((layer(x[i : i + 1]) * upstream[i : i + 1]).sum(), parameters)
        for i in range(len(x))
    ]
    norms = torch.stack([torch.stack([g.norm() for g in one]).norm() for one in each])
    found = torch.stack([part.squared_norms() for part in parts]).sum(dim=0).sqrt()
    assert torch.allclose(found, norms.double(), rtol=1e-4, atol=1e-6)
    weights = torch.linspace(0.5, 2.0, len(x), dtype=torch.float64)
    for part in parts:
        one_by_one = part.instantiated().gradients
        for parameter, total in part.weighted_sum(weights).items():
            index = next(k for k, p in enumerate(parameters) if p is parameter)
            expected = sum(w * one[index] for w, one in zip(weights, each, strict=True))
            assert torch.allclose(total, expected.double(), rtol=1e-4, atol=1e-5)
            stacked = torch.stack([one[index] for one in each])
            assert torch.allclose(one_by_one[parameter], stacked, rtol=1e-4, atol=1e-5)
    assert {p for part in parts for p in part.parameters} == set(parameters)


@settings(max_examples=25, deadline=None)
@given(
    n=sizes, positions=st.lists(sizes, max_size=2), rows=sizes, columns=sizes, bias=st.booleans()
)
def test_linear_layers_agree_with_autograd(
    n: int, positions: list[int], rows: int, columns: int, bias: bool
) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(columns, rows, bias=bias)
    x, upstream = torch.randn(n, *positions, columns), torch.randn(n, *positions, rows)
    _agrees_with_autograd(layer, [linear_gradients(layer, x, upstream)], x, upstream)


@settings(max_examples=25, deadline=None)
@given(
    n=sizes,
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 1)),
    bias=st.booleans(),
)
def test_convolutions_agree_with_autograd(
    n: int,
    channels: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    bias: bool,
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(*channels, kernel, stride=stride, padding=padding, bias=bias)
    x = torch.randn(n, channels[0], 7, 5)
    upstream = torch.randn_like(layer(x))
    _agrees_with_autograd(layer, convolution_gradients(layer, x, upstream), x, upstream)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("steps", [1, 9])
def test_lstm_norms_agree_with_autograd(layers: int, steps: int) -> None:
    torch.manual_seed(0)
    layer = SequenceLSTM(5, 7, layers)
    x, upstream = torch.randn(4, steps, 5), torch.randn(4, steps, 7)
    _agrees_with_autograd(layer, lstm_gradients(layer, x, upstream), x, upstream)


@pytest.mark.parametrize("positions", [2, 40])
def test_both_ways_to_a_norm_are_taken_and_agree(positions: int) -> None:
    torch.manual_seed(0)
    weight, bias = nn.Parameter(torch.zeros(6, 5)), nn.Parameter(torch.zeros(6))
    a, b = torch.randn(3, positions, 5), torch.randn(3, positions, 6)
    products = OuterProducts(a, b, ((weight, 5),), (bias,))
    assert ("_products" in products.__dict__) is False
    squared = products.squared_norms()
    assert ("_products" in products.__dict__) is (positions == 40)
    exact = torch.einsum("ntr,ntc->nrc", b.double(), a.double()).square().sum(dim=(1, 2))
    exact += b.double().sum(dim=1).square().sum(dim=1)
    assert torch.allclose(squared, exact, rtol=1e-4)


def test_a_norm_is_not_understated_where_terms_cancel() -> None:
    # Two positions of opposite sign: the true norm is tiny beside the terms of the ghost norm.
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(300, 200))
    a, b = torch.randn(50, 1, 200), torch.randn(50, 1, 300)
    inputs = torch.cat([a, a + 1e-4 * torch.randn_like(a)], dim=1)
    products = OuterProducts(inputs, torch.cat([b, -b], dim=1), ((weight, 200),), ())
    assert products._by_ghost_norm
    exact = torch.einsum("ntr,ntc->nrc", products.outputs.double(), inputs.double())
    assert bool((products.squared_norms() >= exact.square().sum(dim=(1, 2))).all())


def test_frozen_parameters_do_not_count() -> None:
    torch.manual_seed(0)
    layer = SequenceLSTM(3, 4)
    x, upstream = torch.randn(2, 5, 3), torch.randn(2, 5, 4)
    layer.weight_hh_l0.requires_grad_(False)
    layer.bias_ih_l0.requires_grad_(False)
    (part,) = lstm_gradients(layer, x, upstream)
    kept = [layer.weight_ih_l0, layer.bias_hh_l0]
    norms = [
        torch.stack(
            [g.norm() for g in torch.autograd.grad((layer(x)[i] * upstream[i]).sum(), kept)]
        ).norm()
        for i in range(2)
    ]
    assert torch.allclose(part.squared_norms().sqrt(), torch.stack(norms).double(), rtol=1e-4)
    assert set(part.weighted_sum(torch.ones(2, dtype=torch.float64))) == set(kept)


@pytest.mark.parametrize("positions", [1, 2, 40])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_record_of_weight_zero_leaves_nothing_behind(positions: int, bad: float) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 6)
    x, upstream = torch.randn(3, positions, 5), torch.randn(3, positions, 6)
    x[1], upstream[1] = bad, bad
    part = linear_gradients(layer, x, upstream)
    norms = part.squared_norms()
    assert torch.isfinite(norms).tolist() == [True, False, True]
    weights = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    for ways in (part, part.instantiated()):
        total = ways.weighted_sum(weights)
        rest = linear_gradients(layer, x[::2], upstream[::2]).weighted_sum(
            torch.ones(2, dtype=torch.float64)
        )
        assert all(torch.allclose(total[p], rest[p], atol=1e-5) for p in rest)
