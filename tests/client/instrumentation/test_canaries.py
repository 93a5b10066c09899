"""Canaries are treated like records: drawn at the same rate, clipped, noised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch.nn.utils import parameters_to_vector

from calyx.client.instrumentation.canaries import Canaries, directions
from calyx.client.instrumentation.hooks import Audit
from calyx.client.training.dp_sgd import clipped_gradient_sum, train_privately
from calyx.shared.config.load import build, from_settings
from calyx.shared.data import load_split
from calyx.shared.errors import DataError
from calyx.shared.models import build_model
from calyx.shared.models.vector import dimension
from calyx.shared.privacy.noise import SeededNoise, seeded_key
from calyx.shared.privacy.plan import PrivacyPlan, draft_plan
from calyx.shared.target import Classes
from calyx.shared.tasks.classification import classification

CONFIG = build(
    from_settings(
        [
            "data.max_records=40",
            "privacy.noise=distributed",
            "privacy.sampling=full",
            "privacy.clip_norm=2.0",
            "secure_aggregation.scheme=bfv",
        ]
    )
)
TASK = classification(Classes(10))


def plan_of(sampling_rate: float = 1.0) -> PrivacyPlan:
    plan = draft_plan(CONFIG, 40)
    if sampling_rate == 1.0:
        return plan
    return replace(plan, sampling="poisson", sampling_rate=sampling_rate)


def noise() -> SeededNoise:
    return SeededNoise(seeded_key("test"))


def test_directions_are_orthogonal_unit_vectors() -> None:
    canaries = Canaries(seed=5, places=(3, 700, 8999))
    rows = [canaries.summed(np.array([place]), np.ones(1), 9000) for place in canaries.places]
    assert np.inner(rows, rows) == pytest.approx(np.eye(3), abs=1e-12)
    # Spread out, as a gradient is: no coordinate represents one canary.
    assert np.abs(rows).max() < 8 / np.sqrt(9000)


def test_canaries_are_drawn_by_the_plans_rate() -> None:
    canaries = Canaries(seed=5, places=tuple(range(400)))
    assert len(canaries.drawn(plan_of(), noise())) == 400
    drawn = canaries.drawn(plan_of(0.25), noise())
    assert 100 - 5 * np.sqrt(75) < len(drawn) < 100 + 5 * np.sqrt(75)


def test_the_real_sum_of_gradients_carries_them_clipped() -> None:
    data = load_split(CONFIG.data, 0).train
    model = build_model(CONFIG.model, data.spec, 0)
    size = dimension(model)
    canaries = Canaries(seed=5, places=(1, 2, 5000))
    without, _ = clipped_gradient_sum(model, data, TASK, plan_of(), noise())
    audit = Audit(canaries=canaries)
    carrying, records = clipped_gradient_sum(model, data, TASK, plan_of(), noise(), audit)
    assert records == len(data)  # a canary is no one's record
    seen = directions(5, size).forward(carrying - without)
    expected = np.zeros(size)
    expected[[1, 2, 5000]] = plan_of().clip_norm
    assert seen == pytest.approx(expected, abs=1e-4)


def test_a_model_trained_with_local_noise_carries_them_too() -> None:
    local = build(from_settings(["data.max_records=40", "privacy.noise=local"]))
    plan = replace(draft_plan(local, 40), noise_multiplier=1e-9, steps_per_round=1)
    data = load_split(local.data, 0).train
    weights = []
    for audit in (Audit(), Audit(canaries=Canaries(seed=5, places=(7,)))):
        model = build_model(local.model, data.spec, 0)
        settings = local.training
        train_privately(
            model, data, TASK, settings, plan, proximal_mu=0, noise=noise(), audit=audit
        )
        weights.append(parameters_to_vector(model.parameters()).detach().double().numpy())
    moved = (weights[0] - weights[1]) * plan.expected_batch_size / local.training.learning_rate
    seen = directions(5, len(moved)).forward(moved)
    assert seen[7] == pytest.approx(plan.clip_norm, rel=1e-3)
    assert np.abs(np.delete(seen, 7)).max() < 1e-2


def test_a_client_without_canaries_in_the_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "canaries.npz"
    np.savez(path, seed=np.int64(1), **{"client-0": np.array([4, 2])})
    assert Canaries.load(path, 0) == Canaries(1, (4, 2))
    with pytest.raises(DataError, match="client 3 has no canaries"):
        Canaries.load(path, 3)
