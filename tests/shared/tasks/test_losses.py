"""One loss a record: what it is, and that other records have no part in it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calyx.shared.errors import ModelError
from calyx.shared.models.inputs import made_up_labels
from calyx.shared.target import Classes, MultiLabel, NextTokens, Reals, Target
from calyx.shared.tasks import Metric, Task
from calyx.shared.tasks.classification import classification
from calyx.shared.tasks.multilabel import multilabel
from calyx.shared.tasks.next_token import next_token
from calyx.shared.tasks.regression import regression

WEIGHTS = (0.5, 1.0, 4.0)
TASKS: dict[str, tuple[Task, Target]] = {
    "classes": (classification(Classes(3)), Classes(3)),
    "weighted classes": (classification(Classes(3), WEIGHTS), Classes(3)),
    "labels": (multilabel(MultiLabel(4)), MultiLabel(4)),
    "one label": (multilabel(MultiLabel(1)), MultiLabel(1)),
    "reals": (regression(Reals(-2, 10)), Reals(-2, 10)),
    "tokens": (next_token(NextTokens((6,), 5)), NextTokens((6,), 5)),
}
Array = np.ndarray[Any, np.dtype[np.float64]]


def drawn(name: str, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator, target = torch.Generator().manual_seed(seed), TASKS[name][1]
    outputs = 3 * torch.randn(n, *target.output_shape, generator=generator)
    return outputs, made_up_labels(target, n, generator)


def cross_entropy(logits: Array, label: int) -> float:
    return math.log(np.exp(logits - logits[label]).sum())


def by_hand(name: str, outputs: Array, label: Any) -> float:
    """The loss of one record as its formula says, in double precision."""
    if name == "classes":
        return cross_entropy(outputs, int(label))
    if name == "weighted classes":
        return WEIGHTS[int(label)] * cross_entropy(outputs, int(label))
    if name in ("labels", "one label"):
        each = [math.log1p(math.exp(-o if y else o)) for o, y in zip(outputs, label, strict=True)]
        return sum(each) / len(each)
    if name == "reals":
        return float((outputs[0] - (float(label) - 4) / 6) ** 2)
    each = [cross_entropy(o, int(y)) for o, y in zip(outputs, label, strict=True) if y]
    return sum(each) / len(each)


@pytest.mark.parametrize("name", list(TASKS))
def test_each_record_has_the_loss_of_the_formula(name: str) -> None:
    outputs, labels = drawn(name, 40, 1)
    losses = TASKS[name][0].record_losses(outputs, labels)
    expected = [
        by_hand(name, o, y) for o, y in zip(outputs.double().numpy(), labels.numpy(), strict=True)
    ]
    assert losses.shape == (40,) and losses.dtype == torch.float32
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", list(TASKS))
@given(n=st.integers(2, 30), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_a_records_loss_is_the_same_bits_whatever_the_other_records_are(
    name: str, n: int, seed: int, data: st.DataObject
) -> None:
    task, record = TASKS[name][0], data.draw(st.integers(0, n - 1))
    outputs, labels = drawn(name, n, seed)
    others, their_labels = drawn(name, n, seed + 1)
    others[record], their_labels[record] = outputs[record], labels[record]
    among = task.record_losses(outputs, labels)[record]
    assert torch.equal(among, task.record_losses(others, their_labels)[record])
    alone = task.record_losses(outputs[[record]], labels[[record]])[0]
    assert torch.allclose(among, alone, rtol=1e-6)


@pytest.mark.parametrize("name", list(TASKS))
def test_the_gradient_of_a_records_loss_is_zero_by_the_outputs_of_others(name: str) -> None:
    outputs, labels = drawn(name, 5, 3)
    outputs.requires_grad_()
    loss = TASKS[name][0].record_losses(outputs, labels)[2]
    (gradient,) = torch.autograd.grad(loss, outputs)
    assert gradient[2].any()
    assert not gradient[[0, 1, 3, 4]].any()


def test_padding_has_no_part_in_the_loss_of_a_text() -> None:
    task = TASKS["tokens"][0]
    outputs, _ = drawn("tokens", 2, 4)
    labels = torch.tensor([[1, 4, 2, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    shorter = next_token(NextTokens((3,), 5)).record_losses(outputs[:1, :3], labels[:1, :3])
    changed = outputs.clone()
    changed[0, 3:] += 50 * torch.randn(3, 5)
    for given_outputs in (outputs, changed):
        losses = task.record_losses(given_outputs, labels)
        assert torch.allclose(losses[0], shorter[0])
        assert losses[1] == 0  # a text without a step that has a follower
    outputs.requires_grad_()
    (gradient,) = torch.autograd.grad(task.record_losses(outputs, labels).sum(), outputs)
    assert gradient[0, :3].any() and not gradient[0, 3:].any()
    assert not gradient[1].any() and bool(torch.isfinite(gradient).all())


def test_class_weights_move_with_the_model_to_its_precision() -> None:
    outputs, labels = drawn("weighted classes", 4, 5)
    losses = TASKS["weighted classes"][0].record_losses(outputs.double(), labels)
    assert losses.dtype == torch.float64


def test_the_bounds_of_a_real_value_decide_how_large_an_error_is() -> None:
    outputs, labels = torch.zeros(2, 1), torch.tensor([10.0, -2.0])
    assert regression(Reals(-2, 10)).record_losses(outputs, labels).tolist() == [1, 1]
    assert regression(Reals(-20, 28)).record_losses(outputs, labels).tolist() == [0.0625, 0.0625]


LOSSES = {
    "mean": (lambda outputs, labels: outputs.square().mean(), r"gave \(\) for 4 records"),
    "a loss a label": (lambda outputs, labels: outputs.square(), r"gave \(4, 3\) for 4 records"),
    "kept dimension": (lambda o, y: o.square().mean(1, keepdim=True), r"gave \(4, 1\)"),
    "fewer": (lambda outputs, labels: outputs[1:, 0], r"gave \(3,\)"),
    "a number": (lambda outputs, labels: 1.5, "gave float"),
    "whole numbers": (lambda outputs, labels: labels, r"gave \(4,\)"),
}


@pytest.mark.parametrize(("losses", "found"), LOSSES.values(), ids=LOSSES)
def test_an_own_loss_that_is_not_one_a_record_is_refused_with_what_to_do(
    losses: Any, found: str
) -> None:
    task = Task(losses, {"accuracy": lambda outputs, labels: 0.5})
    with pytest.raises(ModelError, match=f"the task's loss {found}") as caught:
        task.record_losses(torch.ones(4, 3), torch.zeros(4, dtype=torch.int64))
    assert "one loss a record, of shape (records,): no mean over the batch" in caught.value.hint


def half(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    return 0.5


@pytest.mark.parametrize(
    "metrics",
    [{}, (), {"loss": half}, (Metric("mae", half), Metric("mae", half))],
    ids=["none", "none of ours", "called loss", "same name"],
)
def test_a_task_needs_metrics_of_different_names(metrics: Any) -> None:
    with pytest.raises(ModelError, match="a task has the metrics"):
        Task(lambda outputs, labels: outputs[:, 0], metrics)


@pytest.mark.parametrize("name", ["", "Accuracy", "1st", "mean error", "a" * 33, "ä", "a\n"])
def test_a_metrics_name_can_stand_in_files_and_messages(name: str) -> None:
    with pytest.raises(ModelError, match="cannot be called"):
        Metric(name, half)
