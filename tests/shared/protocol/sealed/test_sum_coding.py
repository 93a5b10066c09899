"""Integers that clients make of vectors are the vectors again for server and audit."""

from __future__ import annotations

import numpy as np
import pytest

from calyx.shared.config.load import build
from calyx.shared.encryption.quantise import dithered_rounding
from calyx.shared.errors import EncryptionError
from calyx.shared.privacy.plan import draft_plan, make_plan
from calyx.shared.protocol.sealed.messages import sum_shape
from calyx.shared.protocol.sealed.sum_coding import SumCoding, sum_grid

SIZE = 3_000
SEALED = {"secure_aggregation": {"scheme": "bfv", "min_contributors": 8}}


@pytest.mark.parametrize("noise", ["distributed", "local", "none"])
def test_a_sum_of_integers_is_the_sum_of_the_vectors_to_a_grid_step(noise: str) -> None:
    config = build(SEALED, {"privacy": {"noise": noise}})
    plan = make_plan(config, 100, sum_shape(config, SIZE))
    coding = SumCoding.of(config, plan, SIZE, 3)
    assert coding.grid == sum_grid(config, plan, coding.parameters)
    assert coding.grid.clamp <= coding.parameters.value_bound
    generator = np.random.default_rng(1)
    vectors = generator.normal(size=(5, SIZE)) * 0.01
    integers = [dithered_rounding(coding.scaled(vector), generator) for vector in vectors]
    restored = coding.restored(np.sum(integers, axis=0))
    # Each rounding is off by less than a step, and the rotation keeps the norm.
    most = 5 * coding.grid.step * np.sqrt(SIZE)
    assert 0 < np.linalg.norm(restored - vectors.sum(axis=0)) < most


def test_each_round_has_its_own_rotation() -> None:
    config = build(SEALED, {"privacy": {"noise": "none"}})
    plan, vector = draft_plan(config, 100), np.ones(SIZE)
    first, second = (SumCoding.of(config, plan, SIZE, number).scaled(vector) for number in (1, 2))
    assert not np.allclose(first, second)


def test_a_run_without_sealing_has_no_coding() -> None:
    config = build({"privacy": {"noise": "local"}})
    with pytest.raises(EncryptionError, match="without sealing"):
        SumCoding.of(config, draft_plan(config, 100), SIZE, 1)
