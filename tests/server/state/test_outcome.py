"""A run that comes to nothing is ended, and not called a success."""

from __future__ import annotations

from typing import Any

import pytest

from calyx.server.state.journal import RunEvents
from calyx.server.state.outcome import (
    RunFigures,
    check_effect,
    on_clients,
    rounds_with_effect,
)
from calyx.shared.errors import RoundError, RunError
from calyx.shared.metric_facts import MetricFacts


def event(ok: int, *reasons: str, skipped: bool | None = None) -> dict[str, Any]:
    return {
        "event": "round",
        "ok": ok,
        "skipped": not ok if skipped is None else skipped,
        "reason": "",
        "declined": [],
        "failed": [{"client": str(i), "reason": reason} for i, reason in enumerate(reasons)],
        "rejected": [],
    }


def test_a_run_of_which_no_round_had_an_effect_is_no_success() -> None:
    skipped = event(1, "busy", skipped=True)
    assert rounds_with_effect([skipped, event(2)]) == 1
    check_effect([skipped, event(2)])
    with pytest.raises(RoundError, match="nothing was learned: .* client 0: busy"):
        check_effect([skipped, skipped])


def test_the_figures_of_a_run_are_those_of_its_last_round_and_sums_over_all() -> None:
    figures = {"accuracy": 0.5, "loss": 1.5, "epsilon_max": 0.7, "seconds": 0.25}
    last = {**event(2), "accuracy": 0.75, "loss": 0.5, "epsilon_max": 0.9, "seconds": 0.75}
    last["rejected"] = [{"client": "1", "reason": "NaN"}]
    lost = {**event(0), **figures, "declined": [{"client": "0", "reason": "budget"}]}
    start = {"event": "start", "delta": 1e-4, "noise_multiplier": 2.0, "clients": 3}
    assert RunFigures.of(RunEvents((start, lost, last))) == RunFigures(
        accuracy=0.75,
        metrics={"accuracy": 0.75},
        loss=0.5,
        epsilon_max=0.9,
        delta=1e-4,
        noise_multiplier=2.0,
        rounds=2,
        clients=3,
        rejected=1,
        declined=1,
        rounds_with_effect=1,
        seconds_per_round=0.5,
    )


def test_a_run_that_is_judged_by_another_metric_tells_all_of_them_and_no_accuracy() -> None:
    figures = {"loss": 0.5, "epsilon_max": None, "seconds": 0.75, "accuracy": None}
    metrics = {"r2": 0.25, "mae": 3.5, "rmse": None}
    facts = {"name": "r2", "shown": "R²", "is_share": False, "higher_is_better": True}
    start = {"event": "start", "delta": 0.0, "noise_multiplier": 0.0, "clients": 3}
    told = RunEvents(({**start, "metrics": [facts]}, {**event(2), **figures, "metrics": metrics}))
    found = RunFigures.of(told)
    assert (found.accuracy, found.metrics) == (None, metrics)
    assert list(found.metrics) == ["r2", "mae", "rmse"]
    assert (told.headline, told.headlines()) == (MetricFacts(**facts), [0.25])


def test_a_journal_from_before_there_were_tasks_has_accuracy_for_its_headline() -> None:
    told = RunEvents(({"event": "start"}, {**event(1), "accuracy": 0.5}))
    assert (told.headline.name, told.headline.is_share) == ("accuracy", True)
    assert (told.metrics(0), told.headlines()) == ({"accuracy": 0.5}, [0.5])


@pytest.mark.parametrize("told", [(), ({"event": "start"},), (event(2),)])
def test_a_run_without_a_round_has_no_figures(told: tuple[dict[str, Any], ...]) -> None:
    with pytest.raises(RunError, match="no round"):
        RunFigures.of(RunEvents(told))


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ({}, ""),
        ({"client-loss": 2.0}, ""),
        ({"client-mae": 40.0}, "MAE 40.00 on average"),
        (
            {"client-mae": 40.0, "client-mae-worst": 71.5},
            "MAE 40.00 on average, 71.50 for the worst tenth",
        ),
    ],
)
def test_what_clients_told_about_their_own_records_is_put_in_words(
    told: dict[str, float], text: str
) -> None:
    mae = MetricFacts("mae", "MAE", higher_is_better=False)
    assert on_clients(mae, event(2) | {"clients": told}) == text
