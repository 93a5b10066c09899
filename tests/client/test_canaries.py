"""Canaries take the way of records: drawn by the same rate, clipped, noised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.audit import Audit
from client.canaries import Canaries, directions
from client.dp_sgd import clipped_gradient_sum
from shared.config.load import build, from_settings
from shared.data import load_split
from shared.errors import DataError
from shared.models import build_model
from shared.models.vector import dimension
from shared.privacy.noise import SeededNoise, seeded_key
from shared.privacy.plan import PrivacyPlan, draft_plan

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


def plan_of(sampling_rate: float = 1.0) -> PrivacyPlan:
    plan = draft_plan(CONFIG, 40)
    if sampling_rate == 1.0:
        return plan
    return replace(plan, sampling="poisson", sampling_rate=sampling_rate)


def noise() -> SeededNoise:
    return SeededNoise(seeded_key("test"))


def test_only_canaries_whose_coin_says_so_are_in_the_sum_clipped() -> None:
    canaries = Canaries(seed=5, client=1, coins=(True, False, True))
    total = canaries.clipped_sum(9000, plan_of(), noise())
    found = directions(5, 1, 3, 9000) @ total
    assert found == pytest.approx([2.0, 0.0, 2.0], abs=0.15)
    assert np.linalg.norm(total) == pytest.approx(2.0 * np.sqrt(2), rel=0.02)


def test_canaries_are_drawn_by_the_plans_rate() -> None:
    canaries = Canaries(seed=5, client=1, coins=(True,) * 400)
    total = canaries.clipped_sum(20_000, plan_of(0.25), noise())
    # Nearly orthogonal unit vectors: the squared norm counts how many were drawn.
    drawn = float(np.dot(total, total)) / 4
    assert 100 - 5 * np.sqrt(75) < drawn < 100 + 5 * np.sqrt(75)


def test_the_real_sum_of_gradients_carries_them() -> None:
    data = load_split(CONFIG.data, 0).train
    model = build_model(CONFIG.model, data.input_shape, data.classes, 0)
    size = dimension(model)
    canaries = Canaries(seed=5, client=0, coins=(True, False))
    without, _ = clipped_gradient_sum(model, data, plan_of(), noise())
    audit = Audit(canaries=canaries)
    carrying, records = clipped_gradient_sum(model, data, plan_of(), noise(), audit)
    assert records == len(data)  # a canary is nobody's record
    expected = canaries.clipped_sum(size, plan_of(), noise())
    assert carrying - without == pytest.approx(expected, abs=1e-4)


def test_a_client_without_canaries_in_the_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "canaries.npz"
    np.savez(path, seed=np.int64(1), **{"client-0": np.array([True])})
    assert Canaries.load(path, 0) == Canaries(1, 0, (True,))
    with pytest.raises(DataError, match="client 3 has no canaries"):
        Canaries.load(path, 3)
