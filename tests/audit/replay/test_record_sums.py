from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from calyx.audit.replay.record_sums import clipped_sum_by_record, distance_from_sum_by_record
from calyx.client.training.dp_sgd import clipped_gradient_sum
from calyx.shared.config.schema import ModelConfig
from calyx.shared.data import Dataset
from calyx.shared.models import build_model
from calyx.shared.privacy.noise import SeededNoise, seeded_key
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.record_spec import RecordSpec
from calyx.shared.target import Classes
from calyx.shared.tasks.classification import classification

CLIP = 0.5
TASK = classification(Classes(10))


def records(number: int) -> Dataset:
    random = np.random.default_rng(5)
    features = random.random((number, 1, 8, 8), dtype=np.float32)
    return Dataset(features, random.integers(0, 10, number), 10)


def model() -> nn.Module:
    return build_model(ModelConfig(name="cnn"), RecordSpec.floats((1, 8, 8), Classes(10)), 3)


def plan(number: int) -> PrivacyPlan:
    return PrivacyPlan(
        unit="record",
        noise="distributed",
        relation="one record replaced by a null record",
        clip_norm=CLIP,
        noise_multiplier=1.0,
        sensitivity_factor=1.0,
        sampling="full",
        sampling_rate=1.0,
        expected_batch_size=float(number),
        steps_per_round=1,
        rounds=1,
        declared_records=number,
        target_epsilon=8.0,
        delta=1e-4,
    )


def trainers_sum(net: nn.Module, data: Dataset, clip_norm: float) -> NDArray[np.float64]:
    changed = replace(plan(len(data)), clip_norm=clip_norm)
    return clipped_gradient_sum(net, data, TASK, changed, SeededNoise(seeded_key("test")))[0]


def test_sum_is_that_of_the_trainer_and_leaves_the_model_alone() -> None:
    net, data = model(), records(30)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    distance = distance_from_sum_by_record(net, data, TASK, CLIP, trainers_sum(net, data, CLIP))
    assert distance < 1e-3
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("fault", ["clipped at a tenth more", "one record not clipped", "mean"])
def test_fault_of_clipping_is_not_taken_for_rounding(fault: str) -> None:
    net, data = model(), records(30)
    right = trainers_sum(net, data, CLIP)
    one = data.subset(np.array([7]))
    wrong = {
        "clipped at a tenth more": trainers_sum(net, data, 1.1 * CLIP),
        "one record not clipped": right
        - trainers_sum(net, one, CLIP)
        + trainers_sum(net, one, 1e9),
        "mean": right / len(data),
    }[fault]
    assert distance_from_sum_by_record(net, data, TASK, CLIP, wrong) > 0.05


class OnTheEdge(nn.Module):
    """One unit of ReLU whose input is 0 but for rounding, for one of the records."""

    def __init__(self, input_at_edge: float) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(2, 1, bias=False), nn.Linear(1, 2)
        with torch.no_grad():
            self.inner.weight.copy_(torch.tensor([[1.0, -1.0 + input_at_edge]]))
            self.outer.weight.copy_(torch.tensor([[1.0], [-1.0]]))
            self.outer.bias.zero_()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.outer(torch.relu(self.inner(features)))
        return out


def test_record_whose_gradient_rounding_decides_makes_no_difference() -> None:
    data = Dataset(np.array([[1, 1], [0.2, 0.9]], dtype=np.float32), np.array([0, 1]), 2)
    on, off = OnTheEdge(6e-8), OnTheEdge(-6e-8)
    other = clipped_sum_by_record(on, data, TASK, CLIP)
    here = clipped_sum_by_record(off, data, TASK, CLIP)
    assert np.linalg.norm(other - here) > 0.5 * CLIP  # as correct as each other
    assert distance_from_sum_by_record(off, data, TASK, CLIP, other) < 1e-3
