from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from calyx.shared.config.schema import ModelConfig, TaskConfig
from calyx.shared.models import build_model
from calyx.shared.models.per_record import blocks
from calyx.shared.models.per_record.blocks import (
    RecordBlocks,
    filled_up,
    full_blocks,
    record_blocks,
    sampled_blocks,
)
from calyx.shared.record_spec import RecordSpec
from calyx.shared.target import Classes
from calyx.shared.tasks import Task
from calyx.shared.tasks.classification import classification
from calyx.shared.tasks.find import task_of

TWO = Classes(2)
TASK = classification(TWO)


@given(records=st.integers(0, 2000), expected=st.floats(0.01, 3000))
def test_every_record_of_a_batch_is_in_one_block(records: int, expected: float) -> None:
    for sizes in (sampled_blocks(expected), full_blocks(max(1, records))):
        assert list(sizes) == sorted(set(sizes))
        assert sizes[-1] <= 256 or sizes[-1] - sizes[0] < 256
        assert len(sizes) <= 13
        seen: list[int] = []
        for first, count, size in RecordBlocks(sizes).parts(records):
            assert 1 <= count <= size
            assert size in sizes
            seen += range(first, first + count)
        assert seen == list(range(records))


def test_a_block_is_filled_up_with_empty_rows() -> None:
    x = torch.arange(6.0).view(3, 2) + 1
    filled = filled_up(x, 5)
    assert torch.equal(filled[:3], x)
    assert filled.shape == (5, 2)
    assert not filled[3:].any()


def test_a_layer_whose_rows_do_not_depend_on_the_block_keeps_all_sizes() -> None:
    assert record_blocks(Elementwise(), RecordSpec.floats((3,), TWO), TASK, (8, 16)).sizes == (
        8,
        16,
    )


def test_weights_that_a_sender_chose_do_not_hide_a_difference() -> None:
    model = DependsOnTheSize()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert record_blocks(model, RecordSpec.floats((3,), TWO), TASK, (8, 16)).sizes == (32,)


def test_a_loss_that_depends_on_how_many_records_there_are_gets_blocks_of_one_size() -> None:
    task = Task(lambda outputs, labels: outputs.square().sum(1) / len(labels), {"half": _half})
    spec = RecordSpec.floats((3,), TWO)
    assert record_blocks(Elementwise(), spec, task, (8, 16)).sizes == (32,)


def _half(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    return 0.5


def test_where_places_in_a_block_differ_records_go_one_by_one() -> None:
    assert record_blocks(
        DependsOnThePlace(), RecordSpec.floats((3,), TWO), TASK, (8, 16)
    ).sizes == (1,)


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Linear(3, 2).eval()
    before = {name: p.clone() for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    record_blocks(model, RecordSpec.floats((3,), TWO), TASK, (8,))
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert not model.training
    assert not model._forward_hooks
    assert torch.equal(state, torch.get_rng_state())


def test_an_activation_does_not_hide_a_difference() -> None:
    # Under the weights of the trial nothing gets through it, under a sender's weights it would.
    assert record_blocks(
        HiddenByAnActivation(), RecordSpec.floats((3,), TWO), TASK, (8, 16)
    ).sizes == (1,)


def test_layers_of_odd_sizes_are_where_one_draw_was_not_enough() -> None:
    # Six columns: some processors add them up otherwise at every fourth row. In one draw of weights
    # all that shows it was below zero, and a ReLU follows.
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    sizes = record_blocks(model, RecordSpec.floats((5,), TWO), TASK, (32,)).sizes
    rng = torch.Generator().manual_seed(3)
    weight, bias = torch.randn(6, 5, generator=rng), torch.randn(6, generator=rng)
    x = torch.rand(sizes[-1], 5, generator=rng)
    order = torch.randperm(sizes[-1], generator=rng)
    apart = [nn.functional.linear(rows, weight, bias) for rows in (x, x[order])]
    assert torch.equal(apart[0][order], apart[1])


class Elementwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Embedding(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.scale((x[:, 0] > 0.5).long()) * x
        return logits


class DependsOnTheSize(nn.Module):
    """As a matrix product may that adds up in another order for another number of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(x * (1 + 1e-6 * (len(x) > 8)))
        return logits


class DependsOnThePlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = torch.arange(len(x), dtype=x.dtype).view(-1, 1)
        logits: torch.Tensor = self.layer(x * (1 + 1e-6 * places))
        return logits


class Placed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = torch.arange(len(x), dtype=x.dtype).view(-1, 1)
        return x * self.weight * (1 + 1e-6 * places)


class HiddenByAnActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.placed, self.head = Placed(), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(torch.relu(self.placed(x) - 100))
        return logits


@pytest.mark.parametrize("records", [1, 16, 17, 144, 256, 257, 600])
def test_all_records_take_few_sizes(records: int) -> None:
    sizes = full_blocks(records)
    assert len(sizes) <= 3
    parts = list(RecordBlocks(sizes).parts(records))
    assert sum(size for _, _, size in parts) - records < max(32, sizes[0])
    assert np.all(np.diff([size for _, _, size in parts]) <= 0)


def test_what_was_tried_of_another_model_of_the_same_shapes_is_not_taken_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = RecordSpec.floats((4, 6), Classes(2))
    task = task_of(TaskConfig(), spec.target)
    tried: list[nn.Module] = []
    monkeypatch.setattr(blocks, "_tried", {})
    monkeypatch.setattr(blocks, "_rows_agree", lambda model, *_: not tried.append(model))
    same = {"name": "attention", "hidden": 8, "layers": 1}
    for number, settings in enumerate(({"heads": 1}, {"heads": 2}, {"freeze": "blocks.*"}), 1):
        model = build_model(ModelConfig.model_validate(same | settings), spec, 0, task)
        for _ in range(2):
            blocks.record_blocks(model, spec, task, (8,))
        assert len(tried) == number
