"""A run that comes to nothing is ended, and not called a success."""

from __future__ import annotations

from typing import Any

import pytest

from server.outcome import check_effect, end_if_fruitless, rounds_with_effect
from shared.errors import RoundError


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


def test_two_rounds_in_a_row_without_a_usable_reply_end_the_run_with_the_reasons() -> None:
    good, bad = event(3), event(0, "no BatchNorm", "no BatchNorm")
    with pytest.raises(RoundError, match=r"2 rounds in a row .* client 0: no BatchNorm"):
        end_if_fruitless([good, bad, bad])


@pytest.mark.parametrize(
    "rounds",
    [[], [event(0)], [event(0), event(1)], [event(0), event(0), event(1, skipped=True)]],
    ids=["none yet", "one", "one and then a reply", "a reply that did not suffice"],
)
def test_less_than_that_does_not_end_it(rounds: list[dict[str, Any]]) -> None:
    end_if_fruitless(rounds)


def test_clients_that_only_stay_away_are_a_reason_too() -> None:
    with pytest.raises(RoundError, match="no client answered"):
        end_if_fruitless([event(0), event(0)])


def test_a_run_of_which_no_round_had_an_effect_is_no_success() -> None:
    skipped = event(1, "busy", skipped=True)
    assert rounds_with_effect([skipped, event(2)]) == 1
    check_effect([skipped, event(2)])
    with pytest.raises(RoundError, match="nothing was learned: .* client 0: busy"):
        check_effect([skipped, skipped])
