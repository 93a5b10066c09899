"""Step sizes over the rounds of a run."""

from __future__ import annotations

import itertools

import pytest

from calyx.shared.config.schema import TrainingConfig
from calyx.shared.models.schedule import in_round, rate_factor


def factors(**settings: object) -> list[float]:
    config = TrainingConfig.model_validate({"rounds": 5, **settings})
    return [rate_factor(config, number) for number in range(1, 6)]


def test_without_a_schedule_each_round_has_the_whole_step() -> None:
    assert factors() == [1.0] * 5


def test_a_line_falls_by_the_same_amount_and_ends_above_zero() -> None:
    assert factors(schedule="linear") == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])


def test_a_cosine_falls_slowly_at_both_ends() -> None:
    found = factors(schedule="cosine")
    steps = [before - after for before, after in itertools.pairwise(found)]
    assert found[0] == 1.0
    assert min(steps) > 0
    assert max(steps) == pytest.approx(max(steps[1:-1]))


def test_warm_up_rises_in_equal_steps_to_the_whole_one() -> None:
    assert factors(warmup_rounds=2) == pytest.approx([1 / 3, 2 / 3, 1, 1, 1])


def test_local_training_of_a_round_has_its_step() -> None:
    config = TrainingConfig(rounds=4, learning_rate=0.2, schedule="linear")
    assert in_round(config, 3).learning_rate == pytest.approx(0.1)
    assert in_round(config, 1) is config
