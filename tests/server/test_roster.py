"""The rules at the top of server/roster.py, one by one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calyx.server.roster import ClientOutcome, Member, Roster, RoundRecord, Standing, is_enough
from calyx.shared.errors import RoundError


def roster(count: int, seed: int = 0) -> Roster:
    return Roster((Member(str(i), 100) for i in range(count)), seed)


def test_cohort_depends_only_on_seed_round_and_active_clients() -> None:
    shuffled = Roster((Member(str(i), 100) for i in reversed(range(20))), seed=3)
    assert shuffled.cohort(5, 8, 2) == roster(20, seed=3).cohort(5, 8, 2)
    assert shuffled.cohort(5, 8, 2) != shuffled.cohort(6, 8, 2)
    assert shuffled.cohort(5, 8, 2) != roster(20, seed=4).cohort(5, 8, 2)


@given(st.integers(2, 40), st.integers(1, 40), st.integers(1, 100))
def test_cohort_is_distinct_and_in_natural_order(count: int, size: int, number: int) -> None:
    cohort = roster(count).cohort(number, size, 2)
    assert cohort == sorted(set(cohort), key=int)
    assert len(cohort) == min(size, count)


def test_cohorts_reach_everybody_over_time() -> None:
    members = roster(10)
    seen = {client for number in range(1, 60) for client in members.cohort(number, 3, 2)}
    assert seen == {str(i) for i in range(10)}


def test_rejected_clients_are_quarantined_and_refusing_ones_are_listed() -> None:
    members, record = roster(4), RoundRecord(1, ["0", "1", "2", "3"])
    record.ok += ["0", "3"]
    record.rejected.append(ClientOutcome("1", "array w holds NaN"))
    record.declined.append(ClientOutcome("2", "policy"))
    members.apply(record)
    assert [m.client for m in members.active] == ["0", "3"]
    assert members["1"].standing is Standing.QUARANTINED
    assert members["2"].standing is Standing.DECLINED
    assert members["1"].reason == "array w holds NaN"
    assert members.cohort(2, 4, 2) == ["0", "3"]


def test_failed_and_late_clients_are_asked_again() -> None:
    members, record = roster(3), RoundRecord(1, ["0", "1", "2"])
    record.ok.append("0")
    record.failed.append(ClientOutcome("1", "crashed"))
    record.close()
    members.apply(record)
    assert [n.client for n in record.failed] == ["1", "2"]
    assert "deadline" in record.failed[1].reason
    assert members.cohort(2, 3, 2) == ["0", "1", "2"]


def test_run_ends_with_reasons_when_too_few_clients_are_left() -> None:
    members, record = roster(3), RoundRecord(1, ["0", "1", "2"])
    record.rejected += [ClientOutcome("0", "NaN"), ClientOutcome("1", "wrong shape")]
    members.apply(record)
    with pytest.raises(RoundError, match="only 1 of the 2 clients.*0: NaN"):
        members.cohort(2, 3, 2)


def test_skipped_below_min_replies() -> None:
    record = RoundRecord(1, ["0", "1", "2"], ok=["0"])
    assert not is_enough(record, 2)
    record.ok.append("1")
    assert is_enough(record, 2)


def test_asked_clients_count_as_having_spent() -> None:
    members = roster(3)
    members.asked(["0", "2"])
    members.asked(["0"])
    assert [m.rounds_asked for m in members] == [2, 0, 1]


def test_roster_survives_the_checkpoint() -> None:
    members, record = roster(3, seed=9), RoundRecord(1, ["0"], rejected=[ClientOutcome("0", "NaN")])
    members.asked(["0"])
    members.apply(record)
    copy = Roster.from_json(json.loads(json.dumps(members.to_json())), seed=9)
    assert list(copy) == list(members)
    assert copy.cohort(7, 2, 2) == members.cohort(7, 2, 2)
