"""Several views of one image, and their one gradient."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from calyx.client.training.dp_sgd import clipped_gradient_sum
from calyx.client.training.local import train_locally
from calyx.shared.config.load import build
from calyx.shared.config.schema import MOST_COPIES, ModelConfig, TaskConfig, TrainingConfig
from calyx.shared.data import Dataset
from calyx.shared.errors import ConfigError, ModelError
from calyx.shared.models import build_model
from calyx.shared.models.vector import to_vector, trainable_names
from calyx.shared.privacy.noise import SeededNoise, seeded_key
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.protocol.arrays import weights_of
from calyx.shared.target import Classes
from calyx.shared.tasks.find import task_of
from calyx.shared.tasks.views import shifted, viewed

CLIP = 0.5


@pytest.mark.parametrize("augment", [kind for kind in MOST_COPIES if kind])
def test_there_are_as_many_views_as_the_schema_allows_and_all_differ(augment: str) -> None:
    image = torch.rand(1, 2, 6, 6)
    most = MOST_COPIES[augment]
    views = viewed(image, augment, most)
    assert views.shape == (most, 2, 6, 6)
    assert len({view.numpy().tobytes() for view in views}) == most
    assert torch.equal(views[0], image[0])


def test_views_of_one_record_are_next_to_each_other() -> None:
    images = torch.rand(3, 1, 4, 4)
    views = viewed(images, "flip", 2)
    assert torch.equal(views[::2], images)
    assert torch.equal(views[1::2], images.flip(3))


def test_a_shift_brings_in_zeros_at_the_edge() -> None:
    image = torch.ones(1, 1, 3, 3)
    assert shifted(image, 1, 0)[0, 0].tolist() == [[0, 0, 0], [1, 1, 1], [1, 1, 1]]
    assert shifted(image, 0, -1)[0, 0].tolist() == [[1, 1, 0]] * 3


def test_more_views_than_there_are_is_a_fault() -> None:
    with pytest.raises(ConfigError, match=r"task\.copies"):
        build({"task": {"augment": "flip", "copies": 3}})
    with pytest.raises(ConfigError, match=r"task\.copies"):
        build({"task": {"copies": 2}})


def test_records_that_are_no_images_have_no_views() -> None:
    task = task_of(TaskConfig(augment="flip", copies=2), Classes(3))
    with pytest.raises(ModelError) as caught:
        task.views(torch.rand(2, 5, 4))
    assert "data.view=image" in caught.value.hint


def records() -> Dataset:
    rng = np.random.default_rng(1)
    features = rng.random((7, 1, 8, 8), dtype=np.float32)
    return Dataset(features, np.arange(7) % 3, 3)


def plan_of(noise: Literal["none", "distributed"], multiplier: float, steps: int) -> PrivacyPlan:
    """All seven records in each step."""
    return PrivacyPlan(
        unit="record",
        noise=noise,
        relation="",
        clip_norm=CLIP,
        noise_multiplier=multiplier,
        sensitivity_factor=1.0,
        sampling="full",
        sampling_rate=1.0,
        expected_batch_size=7.0,
        steps_per_round=steps,
        rounds=1,
        delta=1e-5,
        target_epsilon=1.0 if multiplier else float("inf"),
        declared_records=7,
    )


def by_hand(model: nn.Module, data: Dataset, copies: int) -> torch.Tensor:
    """Each record alone: the mean loss of its views, one gradient, clipped."""
    total = torch.zeros(sum(p.numel() for p in model.parameters()), dtype=torch.float64)
    for number in range(len(data)):
        x = viewed(torch.from_numpy(data.floats[number : number + 1]), "flip,shift", copies)
        y = torch.from_numpy(data.labels[number : number + 1]).repeat(copies)
        loss = nn.functional.cross_entropy(model(x), y)
        parts = torch.autograd.grad(loss, list(model.parameters()))
        gradient = torch.cat([part.flatten() for part in parts]).double()
        total += gradient * min(1.0, CLIP / float(gradient.norm()))
    return total


@pytest.mark.parametrize("copies", [1, 4])
def test_the_mean_of_a_records_views_is_clipped_as_one_gradient(copies: int) -> None:
    data = records()
    config = TaskConfig(augment="flip,shift", copies=copies)
    task = task_of(config, data.spec.target)
    model = build_model(ModelConfig(name="cnn"), data.spec, 0)
    plan = plan_of("distributed", 1.0, steps=1)
    found, count = clipped_gradient_sum(model, data, task, plan, SeededNoise(seeded_key("views")))
    assert count == 7
    wanted = by_hand(model, data, copies).numpy()
    assert np.linalg.norm(found - wanted) < 1e-4 * np.linalg.norm(wanted)
    assert np.linalg.norm(found) <= 7 * CLIP


def trained(micro_batch: int) -> np.ndarray:
    data = records()
    task = task_of(TaskConfig(), data.spec.target)
    model = build_model(ModelConfig(name="cnn"), data.spec, 0)
    plan = plan_of("none", 0.0, steps=3)
    config = TrainingConfig(micro_batch=micro_batch, learning_rate=0.05)
    noise = SeededNoise(seeded_key("micro"))
    train_locally(model, data, task, config, plan, proximal_mu=0, noise=noise, order_seed=3)
    return to_vector(weights_of(model), trainable_names(model))


def test_micro_batches_take_the_same_step_but_for_rounding() -> None:
    whole = trained(0)
    assert np.array_equal(whole, trained(7))
    parts = trained(3)
    assert not np.array_equal(whole, parts)
    assert np.allclose(whole, parts, atol=1e-6)
