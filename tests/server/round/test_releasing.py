"""A refused sum: what becomes of the round depends on whose fault it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from calyx.server.aggregation.collection import Combined
from calyx.server.roster import RoundRecord
from calyx.server.round.releasing import Combine, RoundOutcome, outcome
from calyx.shared.errors import ReleaseRefused, RoundError, UnfitSum
from calyx.shared.protocol.authority.interface import Refusal

CLIENTS = ["a", "b", "c", "d"]
DONE = Combined({}, {})


def raising(error: Exception) -> Combine:
    def combine() -> Combined:
        raise error

    return combine


class Round:
    """A round whose sum is refused as often as there are errors."""

    def __init__(
        self, *errors: Exception, answers: Callable[[list[str]], list[str]] = list
    ) -> None:
        self.record = RoundRecord(1, list(CLIENTS), ok=list(CLIENTS))
        self.errors, self._answers = list(errors), answers
        self.asked_again: list[list[str]] = []

    def next(self) -> Combine:
        return raising(self.errors.pop(0)) if self.errors else lambda: DONE

    def again(self) -> Combine:
        self.asked_again.append(self.record.silent)
        self.record.ok = self._answers(self.record.silent)
        self.record.close()
        return self.next()

    def outcome(self, least: int = 2) -> RoundOutcome:
        return outcome(self.record, self.next(), self.again, min_replies=2, least=least)


def test_named_culprits_are_left_out_and_the_others_asked_again() -> None:
    revoked = Refusal.REVOKED.error("b", ["b"])
    forged = Refusal.SIGNATURE.error("c", ["c"])
    played = Round(revoked, forged)
    assert played.outcome() == RoundOutcome(DONE)
    assert played.asked_again == [["a", "c", "d"], ["a", "d"]]
    assert played.record.ok == ["a", "d"]
    assert [n.client for n in played.record.declined] == ["b"], "it broke no rule of the run"
    assert [n.client for n in played.record.rejected] == ["c"]


@pytest.mark.parametrize("reason", [Refusal.PROOF, Refusal.RANGE, Refusal.ROUND_PASSED])
def test_round_is_lost_where_nobody_is_named(reason: Refusal) -> None:
    played = Round(reason.error("x"))
    result = played.outcome()
    assert (result.combined, result.fault) == (None, "refused") and reason in result.reason
    assert played.asked_again == []


def test_culprits_that_are_not_in_the_sum_are_nobody() -> None:
    """An authority that names strangers does not have the round asked again for ever."""
    played = Round(Refusal.SIGNATURE.error("x", ["stranger"]))
    assert played.outcome().fault == "refused" and played.asked_again == []


@pytest.mark.parametrize("reason", [Refusal.CLOSED_RUN, Refusal.SUSPENDED_RUN, Refusal.REVOKED])
def test_run_ends_where_every_further_sum_would_be_refused(reason: Refusal) -> None:
    with pytest.raises(ReleaseRefused, match="the round is still open"):
        Round(reason.error("x")).outcome()


def test_run_ends_with_the_round_open_where_too_few_are_left() -> None:
    played = Round(Refusal.REVOKED.error("a, b", ["a", "b"]))
    with pytest.raises(ReleaseRefused, match="the round is still open"):
        played.outcome(least=3)
    assert played.asked_again == [] and played.record.ok == CLIENTS


def test_round_is_lost_when_too_few_answer_again() -> None:
    played = Round(Refusal.REVOKED.error("a", ["a"]), answers=lambda silent: silent[:1])
    result = played.outcome()
    assert result.fault == "too-few" and "1 usable replies, 2 are needed" in result.reason
    assert {n.client for n in played.record.failed} == {"c", "d"}


def test_unfit_sums_and_too_few_contributions_are_told_apart() -> None:
    assert Round(UnfitSum("long")).outcome() == RoundOutcome(None, "long", "unfit")
    assert Round(RoundError("few")).outcome() == RoundOutcome(None, "few", "too-few")
