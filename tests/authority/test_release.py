"""The release rules: a table of cases, and a machine that tries sequences of calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from calyx.authority.log.events import (
    Closed,
    Event,
    Failed,
    Granted,
    Refused,
    Repeated,
    Revoked,
    names_hash,
)
from calyx.authority.release import (
    MAX_FAILED_PROOFS,
    MAX_REPEATS,
    State,
    apply,
    culprits,
    decide,
    enrol,
    open_run,
)
from calyx.shared.errors import ReleaseRefused
from calyx.shared.protocol.authority.interface import Refusal, ReleaseRequest
from calyx.shared.protocol.sealed.contributor_keys import ContributorKeys
from calyx.shared.protocol.sealed.receipts import Receipt
from tests.authority.releases import (
    KEYS,
    MINIMUM,
    NAMES,
    SIGNING,
    SUM,
    granted,
    opened_state,
    reason,
    receipt,
    request,
    terms,
)


@pytest.fixture
def state() -> State:
    """All contributors enrolled, one run open."""
    return opened_state()


def test_an_honest_request_is_granted(state: State) -> None:
    decision = decide(state, request(NAMES[:3]))
    assert decision == Granted("run", 1, 3, names_hash(NAMES[:3]), SUM, request(NAMES[:3]).digest)


def with_receipt(asked: ReleaseRequest, changed: Receipt) -> ReleaseRequest:
    return replace(asked, receipts=(*asked.receipts[:-1], changed))


@dataclass(frozen=True)
class Case:
    """A request that must be refused, and why."""

    change: Callable[[ReleaseRequest], ReleaseRequest]
    reason: Refusal
    before: tuple[Event, ...] = ()


OTHER = Ed25519PrivateKey.generate()
CASES = {
    "unknown run": Case(lambda r: replace(r, run="other"), Refusal.UNKNOWN_RUN),
    "closed run": Case(lambda r: r, Refusal.CLOSED_RUN, (Closed("run"),)),
    "round nought": Case(lambda r: replace(r, round=0), Refusal.MALFORMED),
    "round too large": Case(lambda r: replace(r, round=2**31), Refusal.MALFORMED),
    "claims more than receipts": Case(lambda r: replace(r, contributors=4), Refusal.COUNT),
    "claims fewer than receipts": Case(lambda r: replace(r, contributors=2), Refusal.COUNT),
    "too few": Case(lambda _: request(NAMES[:2]), Refusal.TOO_FEW),
    "no contributors": Case(lambda _: request([]), Refusal.TOO_FEW),
    "one contributor twice": Case(
        lambda _: request([NAMES[0], NAMES[1], NAMES[1]]), Refusal.DUPLICATE
    ),
    "one contributor, two uploads": Case(
        lambda r: with_receipt(r, receipt(NAMES[0], upload=1)), Refusal.DUPLICATE
    ),
    "another's upload": Case(
        lambda r: with_receipt(
            r,
            replace(r.receipts[2], upload_hash=r.receipts[0].upload_hash).signed(SIGNING[NAMES[2]]),
        ),
        Refusal.DUPLICATE,
    ),
    "another's nonce": Case(
        lambda r: with_receipt(
            r, replace(r.receipts[2], nonce=r.receipts[0].nonce).signed(SIGNING[NAMES[2]])
        ),
        Refusal.DUPLICATE,
    ),
    "not in the run": Case(lambda r: with_receipt(r, receipt(NAMES[5])), Refusal.NOT_IN_RUN),
    "not enrolled": Case(
        lambda r: with_receipt(r, replace(r.receipts[2], contributor="x").signed(OTHER)),
        Refusal.NOT_ENROLLED,
    ),
    "revoked": Case(lambda r: r, Refusal.REVOKED, (Revoked(NAMES[1]),)),
    "receipt of another run": Case(
        lambda r: with_receipt(r, receipt(NAMES[2], run="other")), Refusal.FOREIGN_RECEIPT
    ),
    "receipt of another round": Case(
        lambda r: with_receipt(r, receipt(NAMES[2], round=2)), Refusal.FOREIGN_RECEIPT
    ),
    "receipt for other parameters": Case(
        lambda r: with_receipt(
            r, replace(r.receipts[2], parameters_digest="b" * 64).signed(SIGNING[NAMES[2]])
        ),
        Refusal.FOREIGN_RECEIPT,
    ),
    "signed by someone else": Case(
        lambda r: with_receipt(r, r.receipts[2].signed(OTHER)), Refusal.SIGNATURE
    ),
    "signed by another contributor": Case(
        lambda r: with_receipt(r, r.receipts[2].signed(SIGNING[NAMES[3]])), Refusal.SIGNATURE
    ),
    "tampered after signing": Case(
        lambda r: with_receipt(r, replace(r.receipts[2], upload_hash="9" * 64)), Refusal.SIGNATURE
    ),
    "not signed": Case(
        lambda r: with_receipt(r, replace(r.receipts[2], signature=b"")), Refusal.SIGNATURE
    ),
    "suspended": Case(
        lambda r: request(NAMES[:3], round=9),
        Refusal.SUSPENDED_RUN,
        tuple(
            happened
            for i in range(1, MAX_FAILED_PROOFS + 1)
            for happened in (
                Granted("run", i, 0, "", SUM, str(i)),
                Failed("run", i, 0, "", SUM, "proof", ""),
            )
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refused(name: str, state: State) -> None:
    case = CASES[name]
    state = reduce(apply, case.before, state)
    asked = case.change(request(NAMES[:3]))
    assert reason(state, asked) == case.reason
    decision = decide(state, asked)
    assert apply(state, decision) == state
    assert isinstance(decision, Refused)
    assert Refusal.of(decision.error()) == case.reason


def test_more_contributors_than_fields_hold_are_refused() -> None:
    state = apply(opened_state(), terms("small", max_contributors=3))
    assert reason(state, request(NAMES[:4], run="small")) == Refusal.COUNT


def test_a_round_is_released_once(state: State) -> None:
    state = granted(state, request(NAMES[:3]))
    assert reason(state, request(NAMES[:4])) == Refusal.ALREADY_RELEASED
    other_sum = replace(request(NAMES[:3]), sum_hash="6" * 64)
    assert reason(state, other_sum) == Refusal.ALREADY_RELEASED


def test_the_identical_request_is_granted_again_in_any_order(state: State) -> None:
    state = granted(state, request(NAMES[:3]))
    again = decide(state, request([NAMES[2], NAMES[0], NAMES[1]]))
    assert isinstance(again, Repeated)
    for _ in range(MAX_REPEATS):
        assert isinstance(decide(state, request(NAMES[:3])), Repeated)
        state = apply(state, again)
    assert reason(state, request(NAMES[:3])) == Refusal.ALREADY_RELEASED
    state = granted(state, request(NAMES[:3], round=2))
    assert isinstance(decide(state, request(NAMES[:3], round=2)), Repeated)


def test_a_revocation_after_a_release_does_not_lose_its_answer(state: State) -> None:
    state = apply(granted(state, request(NAMES[:3])), Revoked(NAMES[0]))
    assert isinstance(decide(state, request(NAMES[:3])), Repeated)
    assert reason(state, request(NAMES[:3], round=2)) == Refusal.REVOKED


def test_rounds_go_forward_only_and_may_be_left_out(state: State) -> None:
    state = granted(state, request(NAMES[:3], round=4))
    assert reason(state, request(NAMES[:3], round=3)) == Refusal.ROUND_PASSED
    state = granted(state, request(NAMES[:3], round=7))
    assert reason(state, request(NAMES[:3], round=4)) == Refusal.ROUND_PASSED


@pytest.mark.parametrize("why", [Refusal.PROOF, Refusal.RANGE])
def test_a_failed_sum_spends_its_round(state: State, why: Refusal) -> None:
    state = granted(state, request(NAMES[:3]))
    state = apply(state, Failed("run", 1, 0, "", SUM, why.value, ""))
    assert reason(state, request(NAMES[:3])) == why
    assert reason(state, request(NAMES[:4])) == Refusal.ALREADY_RELEASED
    granted(state, request(NAMES[:3], round=2))


def test_values_out_of_bounds_do_not_suspend_a_run(state: State) -> None:
    for i in range(1, MAX_FAILED_PROOFS + 2):
        state = granted(state, request(NAMES[:3], round=i))
        state = apply(state, Failed("run", i, 0, "", SUM, "range", ""))
    granted(state, request(NAMES[:3], round=99))


def test_runs_do_not_disturb_each_other(state: State) -> None:
    state = apply(state, terms("second"))
    state = granted(state, request(NAMES[:3], round=5))
    granted(state, request(NAMES[:3], round=1, run="second"))


OPENINGS = {
    "below the authority's floor": (terms("new", min_contributors=2), Refusal.TERMS),
    "too few members": (terms("new", contributors=tuple(NAMES[:2])), Refusal.TOO_FEW),
    "a member twice": (terms("new", contributors=(NAMES[0],) * 5), Refusal.DUPLICATE),
    "a stranger": (terms("new", contributors=(*NAMES[:3], "x")), Refusal.NOT_ENROLLED),
    "untagged": (terms("new", is_tagged=False), Refusal.TERMS),
    "other terms": (terms(min_contributors=4), Refusal.TERMS),
}


@pytest.mark.parametrize("name", OPENINGS)
def test_opening_refused(name: str, state: State) -> None:
    asked, why = OPENINGS[name]
    with pytest.raises(ReleaseRefused) as caught:
        open_run(state, asked, floor=MINIMUM, accept_untagged=False)
    assert Refusal.of(caught.value) == why


def test_opening_again_on_the_same_terms_changes_nothing(state: State) -> None:
    assert open_run(state, terms(), floor=MINIMUM, accept_untagged=False) is None
    with pytest.raises(ReleaseRefused, match="closed"):
        open_run(apply(state, Closed("run")), terms(), floor=MINIMUM, accept_untagged=False)


def test_a_revoked_member_cannot_be_in_a_new_run(state: State) -> None:
    with pytest.raises(ReleaseRefused, match="revoked"):
        open_run(apply(state, Revoked(NAMES[0])), terms("new"), MINIMUM, accept_untagged=False)


def test_names_and_keys_are_enrolled_once(state: State) -> None:
    assert enrol(state, KEYS[NAMES[0]]) is None
    stolen = ContributorKeys.of("thief", SIGNING[NAMES[0]], X25519PrivateKey.generate())
    taken = ContributorKeys.of(NAMES[0], OTHER, X25519PrivateKey.generate())
    for keys in (stolen, taken):
        with pytest.raises(ReleaseRefused, match=r"^duplicate"):
            enrol(state, keys)
    with pytest.raises(ReleaseRefused, match=r"^revoked"):
        enrol(apply(state, Revoked(NAMES[0])), KEYS[NAMES[0]])


def test_culprits_are_all_whose_receipts_are_refused_and_only_they() -> None:
    state = opened_state()
    good, forged = receipt(NAMES[0]), replace(receipt(NAMES[1]), signature=bytes(64))
    foreign = receipt(NAMES[2], round=2)
    receipts = (good, forged, foreign)
    asked = ReleaseRequest("run", 1, 3, receipts, SUM)
    refused = decide(state, asked)
    assert isinstance(refused, Refused)
    assert culprits(state, asked, refused) == (NAMES[1], NAMES[2])
    granted(state, request(NAMES[:4]))  # the round is as open as before


def test_round_that_had_its_release_is_not_asked_again_without_a_culprit() -> None:
    """Otherwise a server could have two sums of one round, which differ by one client."""
    state = granted(opened_state(), request(NAMES[:4]))
    state = apply(state, Revoked(NAMES[0]))
    for asked in (request(NAMES[:4]), request(NAMES[1:4]), request(NAMES[1:5])):
        decision = decide(state, asked)
        if isinstance(decision, Refused):
            assert Refusal(decision.reason) is Refusal.ALREADY_RELEASED
            assert culprits(state, asked, decision) == ()
        else:
            assert isinstance(decision, Repeated), "the identical request alone"


def test_round_is_spent_by_a_proof_that_failed() -> None:
    state = granted(opened_state(), request(NAMES[:4]))
    state = apply(state, Failed("run", 1, 4, names_hash(NAMES[:4]), SUM, "proof", ""))
    for asked in (request(NAMES[:4]), request(NAMES[1:4])):
        refused = decide(state, asked)
        assert isinstance(refused, Refused) and culprits(state, asked, refused) == ()
