"""The running average: off, warm-up, types, and its way through a checkpoint."""

from __future__ import annotations

import numpy as np
import pytest

from calyx.server.aggregation.running_average import RunningAverage
from calyx.shared.protocol.arrays import Weights


def model(value: float) -> Weights:
    return {
        "w": np.full((2, 2), value, np.float32),
        "s": np.array(value, np.float32),
        "count": np.array(int(value), np.int64),
    }


def test_off_means_the_newest_model() -> None:
    average = RunningAverage(0.0)
    average.update(1, model(1))
    newest = model(5)
    assert average.update(2, newest) is newest
    assert average.state() == {}


def test_first_rounds_hardly_count() -> None:
    average = RunningAverage(0.9)
    average.update(1, model(100))
    for number in range(2, 60):
        kept = average.update(number, model(1))
    assert kept["w"][0, 0] == pytest.approx(1, abs=0.05)


def test_noise_around_a_point_is_averaged_out() -> None:
    generator = np.random.default_rng(0)
    average = RunningAverage(0.9)
    draws = generator.normal(3.0, 1.0, 200)
    for number, draw in enumerate(draws, start=1):
        kept = average.update(number, {"w": np.array([draw], np.float32)})
    # The stationary standard deviation is sqrt((1 - 0.9) / (1 + 0.9)) = 0.23; five of them.
    assert abs(float(kept["w"][0]) - 3.0) < 5 * 0.23


def test_types_and_shapes_stay_and_counters_are_not_averaged() -> None:
    average = RunningAverage(0.5)
    average.update(1, model(1))
    kept = average.update(2, model(3))
    assert {k: (v.dtype, v.shape) for k, v in kept.items()} == {
        k: (v.dtype, v.shape) for k, v in model(3).items()
    }
    assert kept["count"] == 3 and 1 < kept["s"] < 3


def test_checkpoint_does_not_change_it() -> None:
    straight, resumed = RunningAverage(0.9), RunningAverage(0.9)
    for number in (1, 2, 3):
        straight.update(number, model(number))
    resumed.restore({k: v.copy() for k, v in straight.state().items()})
    one, two = straight.update(4, model(9)), resumed.update(4, model(9))
    assert all(one[k].tobytes() == two[k].tobytes() for k in one)
