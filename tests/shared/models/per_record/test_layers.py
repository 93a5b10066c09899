"""Each layer's formula against one autograd call a record, in double precision."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from calyx.shared.models.per_record.embeddings import TokenRows
from calyx.shared.models.per_record.formulas import FORMULAS
from calyx.shared.models.recurrent import SequenceGRU, SequenceLSTM
from calyx.shared.models.standardised import (
    StandardisedConv1d,
    StandardisedConv2d,
    StandardisedConv3d,
)

sizes = st.integers(1, 5)
seeds = st.integers(0, 2**16)
CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
STANDARDISED: dict[int, type[nn.Module]] = {
    1: StandardisedConv1d,
    2: StandardisedConv2d,
    3: StandardisedConv3d,
}
INSTANCE_NORMS: dict[int, type[nn.Module]] = {
    1: nn.InstanceNorm1d,
    2: nn.InstanceNorm2d,
    3: nn.InstanceNorm3d,
}


def agrees(
    layer: nn.Module, x: torch.Tensor, upstream: torch.Tensor, rounding: float = 1.0
) -> None:
    """Norms and weighted sums of a layer's formula are those of autograd, record by record.

    `rounding`: by how much the layer's own function enlarges float32's.
    """
    parts = FORMULAS[type(layer)](layer, x, upstream)
    names = {p: name for name, p in layer.named_parameters()}
    wide = copy.deepcopy(layer).double()
    wide_x = x.double() if x.is_floating_point() else x
    parameters = {name: p for name, p in wide.named_parameters() if p.requires_grad}
    each = [
        dict(
            zip(
                parameters,
                torch.autograd.grad(
                    (wide(wide_x[i : i + 1]) * upstream[i : i + 1].double()).sum(),
                    list(parameters.values()),
                ),
                strict=True,
            )
        )
        for i in range(len(x))
    ]
    assert {names[p] for part in parts for p in part.parameters} == set(parameters)
    squared = torch.stack([sum(g.square().sum() for g in one.values()) for one in each])
    found = torch.stack([part.squared_norms() for part in parts]).sum(dim=0)
    assert found.dtype == torch.float64
    assert torch.allclose(found.sqrt(), squared.sqrt(), rtol=2e-3, atol=1e-6 * rounding)
    weights = torch.linspace(0.5, 2.0, len(x), dtype=torch.float64)
    for part in parts:
        one_by_one = part.instantiated().gradients
        for parameter, total in part.weighted_sum(weights).items():
            stacked = torch.stack([one[names[parameter]] for one in each])
            expected = torch.tensordot(weights, stacked, dims=1)
            scale = 1e-5 * rounding * (1 + float(stacked.abs().max()))
            assert total.dtype == torch.float64 and total.shape == parameter.shape
            assert torch.allclose(total, expected, rtol=1e-4, atol=scale)
            assert torch.allclose(one_by_one[parameter].double(), stacked, rtol=1e-4, atol=scale)


@settings(max_examples=40, deadline=None)
@given(
    seed=seeds,
    n=sizes,
    positions=st.lists(sizes, max_size=2),
    values=st.integers(2, 9),
    width=sizes,
    padding=st.sampled_from([None, 0, -1]),
)
def test_embeddings(
    seed: int, n: int, positions: list[int], values: int, width: int, padding: int | None
) -> None:
    torch.manual_seed(seed)
    layer = nn.Embedding(values, width, padding_idx=padding)
    x = torch.randint(0, values, (n, *positions))
    agrees(layer, x, torch.randn(*x.shape, width))


def test_no_table_a_record_is_ever_made() -> None:
    torch.manual_seed(0)
    layer = nn.Embedding(1_000_000, 8)
    x = torch.randint(0, 1_000_000, (64, 20))
    x[:, 10:] = x[:, :1]
    (rows,) = FORMULAS[nn.Embedding](layer, x, torch.randn(64, 20, 8))
    assert isinstance(rows, TokenRows)
    assert rows.values.shape == (64, 20, 8)
    total = rows.weighted_sum(torch.ones(64, dtype=torch.float64))[layer.weight]
    assert total.shape == (1_000_000, 8)


def test_uses_of_one_table_are_added_up_before_their_norm() -> None:
    table = nn.Parameter(torch.zeros(5, 1))
    first = TokenRows(table, torch.tensor([[1, 2]]), torch.tensor([[[3.0], [4.0]]]))
    second = TokenRows(table, torch.tensor([[2, 3]]), torch.tensor([[[-4.0], [5.0]]]))
    both = first + second
    assert both.squared_norms().item() == 9 + 25
    total = both.weighted_sum(torch.ones(1, dtype=torch.float64))[table]
    assert total.flatten().tolist() == [0, 3, 0, 5, 0]


# PyTorch says so once a process.
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=seeds, dimensions=st.integers(1, 3), standardised=st.booleans())
def test_convolutions(data: Any, seed: int, dimensions: int, standardised: bool) -> None:
    def drawn(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in range(dimensions))

    torch.manual_seed(seed)
    groups = data.draw(st.integers(1, 3))
    channels = groups * data.draw(st.integers(1, 2)), groups * data.draw(st.integers(1, 2))
    kernel, dilation = drawn(1, 3), drawn(1, 2)
    mode = data.draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    if data.draw(st.booleans()):
        padding: Any = data.draw(st.sampled_from(["same", "valid"]))
        stride: tuple[int, ...] = (1,) * dimensions
    else:
        padding, stride = drawn(0, 2), drawn(1, 2)
    kind = (STANDARDISED if standardised else CONVOLUTIONS)[dimensions]
    layer = kind(
        *channels,
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=data.draw(st.booleans()),
        padding_mode=mode,
    )
    x = torch.randn(data.draw(st.integers(1, 3)), channels[0], *(7 - i for i in range(dimensions)))
    if dimensions == 2 and data.draw(st.booleans()):
        x = x.contiguous(memory_format=torch.channels_last)
    # The Jacobian of a standardised filter is as large as its weights are close together.
    spread = layer.weight.detach().flatten(1).std(dim=1, correction=0).clamp(min=1e-2)
    agrees(layer, x, torch.randn_like(layer(x)), float(10 / spread.min()) if standardised else 1.0)


@settings(max_examples=40, deadline=None)
@given(
    seed=seeds,
    n=sizes,
    positions=st.lists(sizes, max_size=2),
    shape=st.lists(st.integers(2, 4), min_size=1, max_size=2),
    bias=st.booleans(),
)
def test_layer_norms(seed: int, n: int, positions: list[int], shape: list[int], bias: bool) -> None:
    torch.manual_seed(seed)
    layer = nn.LayerNorm(shape, bias=bias)
    x = torch.randn(n, *positions, *shape)
    agrees(layer, x, torch.randn_like(x))


@settings(max_examples=40, deadline=None)
@given(seed=seeds, n=sizes, groups=sizes, by_group=sizes, rest=st.lists(sizes, max_size=3))
def test_group_norms(seed: int, n: int, groups: int, by_group: int, rest: list[int]) -> None:
    torch.manual_seed(seed)
    layer = nn.GroupNorm(groups, groups * by_group)
    x = torch.randn(n, groups * by_group, *rest)
    assume(x[0].numel() > groups)  # PyTorch itself refuses a norm of single values
    agrees(layer, x, torch.randn_like(x))


@settings(max_examples=30, deadline=None)
@given(
    seed=seeds, n=sizes, channels=sizes, rest=st.lists(st.integers(2, 4), min_size=1, max_size=3)
)
def test_instance_norms(seed: int, n: int, channels: int, rest: list[int]) -> None:
    torch.manual_seed(seed)
    layer = INSTANCE_NORMS[len(rest)](channels, affine=True)
    x = torch.randn(n, channels, *rest)
    agrees(layer, x, torch.randn_like(x))


@settings(max_examples=30, deadline=None)
@given(
    seed=seeds,
    kind=st.sampled_from([SequenceLSTM, SequenceGRU]),
    n=sizes,
    steps=st.integers(1, 12),
    features=sizes,
    hidden=sizes,
    layers=st.integers(1, 3),
)
def test_recurrent_layers(
    seed: int, kind: Any, n: int, steps: int, features: int, hidden: int, layers: int
) -> None:
    torch.manual_seed(seed)
    layer = kind(features, hidden, layers)
    agrees(layer, torch.randn(n, steps, features), torch.randn(n, steps, hidden))


FROZEN: list[tuple[nn.Module, str, tuple[int, ...]]] = [
    (nn.Conv1d(4, 4, 3, groups=2), "weight", (3, 4, 6)),
    (nn.Conv1d(4, 4, 3, groups=2), "bias", (3, 4, 6)),
    (nn.Conv3d(2, 3, 2), "bias", (3, 2, 4, 4, 4)),
    (nn.LayerNorm(4), "weight", (3, 5, 4)),
    (nn.GroupNorm(2, 4), "bias", (3, 4, 5)),
    (StandardisedConv1d(2, 3, 2), "weight", (3, 2, 5)),
    (SequenceGRU(4, 3, 2), "weight_hh_l1", (3, 6, 4)),
    (SequenceGRU(4, 3), "bias_ih_l0", (3, 6, 4)),
]


@pytest.mark.parametrize(("layer", "frozen", "shape"), FROZEN)
def test_frozen_parameters_do_not_count(
    layer: nn.Module, frozen: str, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    layer = copy.deepcopy(layer)
    getattr(layer, frozen).requires_grad_(False)
    x = torch.randn(shape)
    agrees(layer, x, torch.randn_like(layer(x)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Embedding(4, 3), None),
        (nn.Conv1d(4, 4, 3, groups=2), (3, 4, 6)),
        (nn.LayerNorm(4), (3, 5, 4)),
        (StandardisedConv2d(2, 3, 2), (3, 2, 4, 4)),
        (SequenceGRU(4, 3), (3, 6, 4)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_record_that_is_not_finite_leaves_nothing_behind(
    layer: nn.Module, shape: tuple[int, ...] | None, bad: float
) -> None:
    torch.manual_seed(0)
    x = torch.randint(0, 4, (3, 5)) if shape is None else torch.randn(shape)
    upstream = torch.randn_like(layer(x))
    upstream[1] = bad
    formula = FORMULAS[type(layer)]
    weights = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    rest = formula(layer, x[::2], upstream[::2])
    parts = formula(layer, x, upstream)
    norms = torch.stack([part.squared_norms() for part in parts]).sum(dim=0)
    assert torch.isfinite(norms).tolist() == [True, False, True]
    for part, without in zip(parts, rest, strict=True):
        expected = without.weighted_sum(torch.ones(2, dtype=torch.float64))
        for parameter, total in part.weighted_sum(weights).items():
            assert torch.allclose(total, expected[parameter], atol=1e-5)


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e-20, 1e10, 1e18])
@pytest.mark.parametrize("opposite", [False, True], ids=["equal", "cancelling"])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Embedding(4, 3), None),
        (nn.Conv1d(4, 4, 3, groups=2), (3, 4, 6)),
        (nn.Conv3d(2, 3, 2), (3, 2, 3, 3, 3)),
        (nn.LayerNorm(4), (3, 6, 4)),
        (nn.GroupNorm(2, 4), (3, 4, 6)),
        (nn.InstanceNorm1d(4, affine=True), (3, 4, 6)),
        (StandardisedConv1d(4, 4, 3), (3, 4, 6)),
        (SequenceGRU(4, 3, 2), (3, 6, 4)),
        (SequenceLSTM(4, 3, 2), (3, 6, 4)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_norm_is_never_below_that_of_what_is_summed(
    layer: nn.Module, shape: tuple[int, ...] | None, opposite: bool, scale: float
) -> None:
    """Denormal and huge gradients, and terms that cancel in all but their last bits."""
    torch.manual_seed(1)
    x = torch.zeros(3, 6, dtype=torch.int64) if shape is None else torch.randn(shape)
    y = layer(x).detach()
    upstream = torch.randn_like(y[:, :1]).expand_as(y).clone() * scale
    if opposite:
        upstream[:, ::2] *= -(1 + 1e-6)
    parts = FORMULAS[type(layer)](layer, x, upstream)
    squared = torch.stack([part.squared_norms() for part in parts]).sum(dim=0)
    for record in range(3):
        chosen = torch.zeros(3, dtype=torch.float64)
        chosen[record] = 1
        summed = [g for part in parts for g in part.weighted_sum(chosen).values()]
        released = torch.stack([g.square().sum() for g in summed]).sum()
        assert torch.isfinite(squared[record])
        assert float(released.sqrt()) <= float(squared[record].sqrt()) * (1 + 1e-9)
