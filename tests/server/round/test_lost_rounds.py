"""A run stops when its rounds keep being lost, and not before."""

from __future__ import annotations

from typing import Any

import pytest

from calyx.server.round.lost_rounds import MOST_IN_A_ROW, MOST_IN_ALL, reason_to_stop


def history(*faults: str) -> list[dict[str, Any]]:
    return [{"round": n, "fault": f, "reason": f"why {n}"} for n, f in enumerate(faults, 1)]


@pytest.mark.parametrize("fault", MOST_IN_ALL)
def test_faults_of_a_sum_are_counted_over_the_whole_run(fault: str) -> None:
    """If counted in a row only, a client that spoils every other round would never be stopped."""
    told: list[str] = []
    for _ in range(MOST_IN_ALL[fault]):
        assert reason_to_stop(history(*told)) is None
        told += ["", fault]
    reason = reason_to_stop(history(*told))
    assert reason is not None and f"and {len(told)}" in reason and f"why {len(told)}" in reason


def test_rounds_with_too_few_replies_are_counted_in_a_row() -> None:
    most = MOST_IN_A_ROW["too-few"]
    assert reason_to_stop(history(*["too-few"] * (most - 1), "", "too-few")) is None
    assert reason_to_stop(history(*["too-few"] * (most - 1))) is None
    assert reason_to_stop(history("", *["too-few"] * most)) is not None


def test_a_client_that_answers_now_and_then_does_not_have_the_others_pay_for_ever() -> None:
    for pattern in (["too-few", "too-few", ""], ["no-reply", ""], ["too-few", "", ""]):
        told: list[str] = []
        while reason_to_stop(history(*told)) is None:
            told.append(pattern[len(told) % len(pattern)])
            assert len(told) < 20, pattern
        assert sum(map(bool, told)) == 6
    # Fewer than a third come from devices that are away at times.
    assert reason_to_stop(history(*["too-few", "", "", ""] * 30, "too-few")) is None


def test_two_rounds_without_any_reply_are_enough_and_the_clients_reasons_are_told() -> None:
    said = {"failed": [{"client": "7", "reason": "no BatchNorm"}]}
    lost = [event | said for event in history("no-reply", "no-reply")]
    reason = reason_to_stop(lost)
    assert reason is not None and "client 7: no BatchNorm" in reason
    assert reason_to_stop(history("no-reply", "", "no-reply")) is None


def test_rounds_without_any_reply_have_too_few_as_well() -> None:
    assert reason_to_stop(history("no-reply", "too-few", "no-reply")) is not None


def test_faults_of_different_kinds_do_not_add_up() -> None:
    assert reason_to_stop(history("refused", "unfit", "too-few", "unfit", "too-few")) is None


def test_resumed_run_goes_on_until_the_next_fault() -> None:
    stopped = ["refused", "refused"]
    assert reason_to_stop(history(*stopped)) is not None
    assert reason_to_stop(history(*stopped, "")) is None
    assert reason_to_stop(history(*stopped, "", "refused")) is not None


def test_history_of_an_older_version_names_no_faults() -> None:
    assert reason_to_stop([{"round": 1, "skipped": True, "reason": "x"}] * 5) is None
    assert reason_to_stop([]) is None
