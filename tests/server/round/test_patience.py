"""A run ends early where the model gets no better."""

from __future__ import annotations

import pytest

from calyx.server.round.patience import has_stalled
from calyx.shared.tasks.metric import Metric

ACCURACY = Metric("accuracy", lambda p, t: 0.0, is_share=True)
ERROR = Metric("mae", lambda p, t: 0.0, higher_is_better=False)


def history(name: str, *values: float | None) -> list[dict[str, object]]:
    return [{"metrics": {name: value}} for value in values]


@pytest.mark.parametrize(
    ("values", "stalled"),
    [
        ((0.5, 0.6, 0.6, 0.6), True),
        ((0.5, 0.6, 0.55, 0.61), False),
        ((0.7, 0.6, 0.6), True),
        ((0.7, 0.6), False),
        ((None, None, None), True),
        ((0.1, None, None), True),
        ((None, 0.1, None), False),
    ],
)
def test_two_rounds_without_a_better_one_are_enough(
    values: tuple[float | None, ...], stalled: bool
) -> None:
    assert has_stalled(history("accuracy", *values), ACCURACY, 2) is stalled


def test_of_an_error_less_is_better() -> None:
    assert not has_stalled(history("mae", 3.0, 2.0, 1.0), ERROR, 1)
    assert has_stalled(history("mae", 1.0, 2.0), ERROR, 1)


def test_without_patience_a_run_goes_on() -> None:
    assert not has_stalled(history("accuracy", *[0.1] * 50), ACCURACY, 0)
