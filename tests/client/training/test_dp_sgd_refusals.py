"""What is not trained, and that nothing stays attached when training fails."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from calyx.shared.data import Dataset
from calyx.shared.errors import ModelError, PrivacyError
from calyx.shared.record_spec import RecordSpec
from calyx.shared.target import Classes
from tests.client.training.private_training import (
    NoNoise,
    flat,
    make_data,
    make_model,
    make_private_plan,
    train,
)


class Untouchable(Dataset):
    """Records that may not be looked at; only their shape is public."""

    def __init__(self) -> None:
        object.__setattr__(self, "spec", RecordSpec.floats((4,), Classes(3)))

    def __getattribute__(self, name: str) -> object:
        if name in ("features", "labels"):
            raise AssertionError("a record was touched")
        return super().__getattribute__(name)


class MeanOfTheBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(x - x.mean(dim=0))
        return logits


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), "BatchNorm1d"),
        (MeanOfTheBatch, "other records"),
        (lambda: nn.Linear(4, 3).requires_grad_(False), "no trainable"),
    ],
    ids=["batch norm", "batch mean", "frozen"],
)
def test_a_model_that_cannot_be_private_is_refused_before_a_record_is_touched(
    make: Callable[[], nn.Module], words: str
) -> None:
    model = make()
    before = flat(model)
    with pytest.raises(ModelError, match=words):
        train(model, Untouchable(), make_private_plan(12, 4), NoNoise([0]))
    assert torch.equal(before, flat(model))


@pytest.mark.parametrize("multiplier", [0.0, -1.0, math.nan])
def test_a_private_plan_without_noise_is_refused(multiplier: float) -> None:
    model, plan = make_model(), make_private_plan(12, 4, multiplier=multiplier)
    before = flat(model)
    with pytest.raises(PrivacyError, match="noise multiplier above 0"):
        train(model, Untouchable(), plan, NoNoise([0]))
    assert torch.equal(before, flat(model))


def test_an_error_in_the_middle_leaves_nothing_attached() -> None:
    model = make_model()
    with pytest.raises(IndexError):
        # The second step finds no coins.
        train(model, make_data((4,)), make_private_plan(12, 4, steps=2), NoNoise([0]))
    assert not any(m._forward_hooks for m in model.modules())
    assert all(p.grad is None and vars(p) == {} for p in model.parameters())
