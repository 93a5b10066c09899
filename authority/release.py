"""When a sum may be decrypted: the rules, as a pure state machine without input or output.

Only events change a state (`apply`), and every event is in the authority's log before anything is
done because of it, so the log replayed *is* the state after any crash.

Rules for opening a run (`open_run`):

1. A run's terms (parameters, minimum, contributors, plan, configuration) never change. The same
   terms again give the same key again. They are signed for every contributor, so all contributors
   of one run get the same terms, or refuse (docs/adr/0018). A run that names no configuration was
   opened by a version that bound neither it nor the plan; it is not opened again.
2. `min_contributors` is at least the authority's own floor, and there are at least that many
   contributors; all of them are enrolled and none is revoked.
3. Untagged sums (CKKS) only if the authority's owner allows them.

Rules for releasing (`decide`), in the order of checking:

4. The run is known, neither closed nor suspended, and names its configuration.
5. One release a round, rounds strictly forward. The *identical* request is granted again: its sum
   has the same hash, so it is the same ciphertext, and decrypting it a second time reveals nothing
   new. So no plaintext is kept, and a reply lost in a crash is not lost for good. Any other request
   for that round or an earlier one is refused, and so is the identical one after `MAX_REPEATS`
   times: each is a line in the log.
6. As many receipts as the server says it added, from distinct contributors, at least
   `min_contributors` and at most what the parameters can add without overflow, with distinct
   upload hashes and nonces.
7. Every contributor is enrolled, not revoked, and one of the run's.
8. Every receipt is for this run, round and parameters and signed by its contributor. With rule 5
   this means that a receipt is used for one release at most.

After a grant the sum is decrypted and its tags are checked (`calyx.shared.protocol.sealed.tags`):

9. Tags that do not fit mean that the sum is not that of the receipts' uploads. Nothing is
   released, the round is spent, and after `MAX_FAILED_PROOFS` the run is suspended: whether a
   sum with added noise still decrypts may depend on the secret key. With at most 3 failures in R
   rounds the answers "released" and "failed" say no more than about 3 log2(R) bits of it.
10. Tags that fit, over sums that no honest values add up to, mean that a contributor broke its
   bound. Nothing is released and the round is spent. Untagged, this counts as rule 9.

What the rules do not guarantee: they count contributors, not honest ones. The noise of a released
sum is what its contributors added; `min_contributors` must allow for those who collude with the
server and subtract their own share. Contributors who give their tag keys to the server remove rule
9 for the whole run. Without tags (CKKS) the server is trusted to add correctly: a cheating one
could have a single upload decrypted, or a crafted ciphertext that reveals the key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from calyx.authority.log.events import (
    Closed,
    Enrolled,
    Event,
    Failed,
    Granted,
    MoreRefused,
    Opened,
    Recovered,
    Refused,
    Repeated,
    Revoked,
    Witnessed,
    names_hash,
)
from calyx.shared.protocol.authority.interface import Refusal, ReleaseRequest
from calyx.shared.protocol.sealed.contributor_keys import ContributorKeys
from calyx.shared.protocol.sealed.receipts import MAX_ROUND, Receipt
from calyx.shared.protocol.signatures.signed import is_hex

MAX_FAILED_PROOFS = 3
MAX_REPEATS = 100

# Rules 7 and 8: without the contributors that they name the sum would not be refused.
_ABOUT_SOMEBODY = frozenset(
    {
        Refusal.NOT_ENROLLED,
        Refusal.REVOKED,
        Refusal.NOT_IN_RUN,
        Refusal.FOREIGN_RECEIPT,
        Refusal.SIGNATURE,
    }
)


@dataclass(frozen=True)
class RunState:
    """Where a run stands."""

    terms: Opened
    last_round: int = 0
    last_request: str = ""
    last_failure: str = ""
    failures: int = 0
    repeats: int = 0
    is_closed: bool = False


@dataclass(frozen=True)
class State:
    """Everything the rules depend on."""

    enrolled: Mapping[str, Enrolled] = field(default_factory=dict)
    revoked: frozenset[str] = frozenset()
    runs: Mapping[str, RunState] = field(default_factory=dict)


def apply(state: State, event: Event) -> State:
    """The state after an event. Events come from the functions below or from the log."""
    match event:
        case Enrolled():
            return replace(state, enrolled={**state.enrolled, event.name: event})
        case Revoked():
            return replace(state, revoked=state.revoked | {event.name})
        case Opened():
            return replace(state, runs={**state.runs, event.run: RunState(event)})
        case Granted():
            run = replace(
                state.runs[event.run],
                last_round=event.round,
                last_request=event.request,
                last_failure="",
                repeats=0,
            )
        case Repeated():
            before = state.runs[event.run]
            run = replace(before, repeats=before.repeats + 1)
        case Failed():
            before = state.runs[event.run]
            failures = before.failures + (event.reason == Refusal.PROOF)
            run = replace(before, last_failure=event.reason, failures=failures)
        case Closed():
            run = replace(state.runs[event.run], is_closed=True)
        case Refused() | MoreRefused() | Recovered() | Witnessed():
            return state
    return replace(state, runs={**state.runs, event.run: run})


def enrol(state: State, keys: ContributorKeys) -> Enrolled | None:
    """The event that makes a contributor known; None if it already is, with the same keys.

    Raises:
        ReleaseRefused: the name or a key is taken, or was revoked.
    """
    event = Enrolled(keys.name, keys.verify_key.hex(), keys.seal_key.hex())
    if keys.name in state.revoked:
        raise Refusal.REVOKED.error(
            f"{keys.name!r} was revoked",
            hint="enrol the device under another name",
        )
    if state.enrolled.get(keys.name) == event:
        return None
    for other in state.enrolled.values():
        if other.name == keys.name:
            raise Refusal.DUPLICATE.error(
                f"{keys.name!r} is enrolled with other keys",
                hint="revoke it, or choose another name",
            )
        if other.verify_key == event.verify_key or other.seal_key == event.seal_key:
            raise Refusal.DUPLICATE.error(
                f"the keys of {keys.name!r} are already enrolled as {other.name!r}",
                hint="use one name for each device",
            )
    return event


def open_run(state: State, terms: Opened, floor: int, accept_untagged: bool) -> Opened | None:
    """The event that opens a run (rules 1 to 3); None if it is open on the same terms.

    Raises:
        ReleaseRefused: the rules do not allow it.
    """
    if not is_hex(terms.config_digest, 64):
        raise Refusal.TERMS.error(
            "the server does not say which configuration the run has",
            hint="update the server",
        )
    if terms.plan_digest and not is_hex(terms.plan_digest, 64):
        raise Refusal.TERMS.error("the digest of the plan is malformed")
    known = state.runs.get(terms.run)
    if known is not None:
        if known.is_closed:
            raise Refusal.CLOSED_RUN.error(f"run {terms.run!r} is closed", hint="start a new run")
        if not known.terms.config_digest:
            raise Refusal.TERMS.error(_of_an_older_version(terms.run), hint="start a new run")
        if known.terms != terms:
            raise Refusal.TERMS.error(f"run {terms.run!r} was opened on other terms")
        return None
    if not terms.is_tagged and not accept_untagged:
        raise Refusal.TERMS.error(
            "sums of this scheme cannot be verified",
            hint="use bfv, or have the authority accept them",
        )
    if terms.min_contributors < floor:
        raise Refusal.TERMS.error(
            f"min_contributors is {terms.min_contributors}; this authority requires {floor}"
        )
    if len(set(terms.contributors)) != len(terms.contributors):
        raise Refusal.DUPLICATE.error("a contributor is listed twice")
    if len(terms.contributors) < terms.min_contributors:
        raise Refusal.TOO_FEW.error(
            f"{len(terms.contributors)} contributors; the minimum is {terms.min_contributors}"
        )
    for name in terms.contributors:
        if refusal := _standing(state, name):
            raise refusal[0].error(refusal[1])
    return terms


def decide(state: State, request: ReleaseRequest) -> Granted | Repeated | Refused:
    """Whether a sum may be decrypted (rules 4 to 8)."""
    names = names_hash(receipt.contributor for receipt in request.receipts)
    about = (request.run, request.round, len(request.receipts), names, request.sum_hash)
    if refusal := _fault(state, request):
        reason, detail = refusal
        return Refused(*about, reason.value, detail)
    last = state.runs[request.run].last_round
    kind = Repeated if request.round == last else Granted
    return kind(*about, request.digest)


_Fault = tuple[Refusal, str] | None


def _fault(state: State, request: ReleaseRequest) -> _Fault:
    run = state.runs.get(request.run)
    if run is None:
        return Refusal.UNKNOWN_RUN, f"no run {request.run!r} was opened here"
    if run.is_closed:
        return Refusal.CLOSED_RUN, f"run {request.run!r} is closed and its key destroyed"
    if run.failures >= MAX_FAILED_PROOFS:
        return Refusal.SUSPENDED_RUN, (
            f"run {request.run!r} is suspended after {run.failures} sums that were not those of "
            "their contributors; check the server and the clients, then start a new run"
        )
    if not run.terms.config_digest:
        return Refusal.TERMS, f"{_of_an_older_version(request.run)}; start a new run"
    if not 1 <= request.round <= MAX_ROUND:
        return Refusal.MALFORMED, f"round {request.round} is out of range"
    if request.round == run.last_round and request.digest == run.last_request:
        if run.last_failure:
            return Refusal(run.last_failure), f"round {request.round} was refused for it before"
        if run.repeats >= MAX_REPEATS:
            return Refusal.ALREADY_RELEASED, (
                f"round {request.round} was answered {1 + run.repeats} times; start the next one"
            )
        return None
    if request.round == run.last_round:
        return Refusal.ALREADY_RELEASED, f"round {request.round} had its one release"
    if request.round < run.last_round:
        return Refusal.ROUND_PASSED, f"round {request.round} came after round {run.last_round}"
    return _contributors_fault(state, run.terms, request)


def _contributors_fault(state: State, terms: Opened, request: ReleaseRequest) -> _Fault:
    receipts = request.receipts
    if len(receipts) != request.contributors:
        return Refusal.COUNT, f"{len(receipts)} receipts for {request.contributors} contributors"
    for what, values in (
        ("contributor", [r.contributor for r in receipts]),
        ("upload", [r.upload_hash for r in receipts]),
        ("nonce", [r.nonce for r in receipts]),
    ):
        if len(set(values)) != len(values):
            return Refusal.DUPLICATE, f"two receipts have the same {what}"
    if len(receipts) < terms.min_contributors:
        return Refusal.TOO_FEW, (
            f"{len(receipts)} contributors, run {terms.run!r} needs {terms.min_contributors}"
        )
    if len(receipts) > terms.max_contributors:
        return Refusal.COUNT, (
            f"{len(receipts)} contributors, the fields of run {terms.run!r} hold sums of "
            f"{terms.max_contributors}"
        )
    return next((fault for _, fault in _faulty(state, terms, request)), None)


def _faulty(
    state: State, terms: Opened, request: ReleaseRequest
) -> Iterator[tuple[str, tuple[Refusal, str]]]:
    """Contributors that rules 7 and 8 do not allow in this sum, and why."""
    members = frozenset(terms.contributors)
    for receipt in request.receipts:
        if fault := _receipt_fault(state, terms, members, request, receipt):
            yield receipt.contributor, fault


def culprits(state: State, request: ReleaseRequest, refused: Refused) -> tuple[str, ...]:
    """All contributors that a request was refused for, where it was refused for some of them.

    The sender may leave them out and ask again: nothing was granted, so the round still has its one
    release (rule 5). It learns no more than whose receipts it must not present.
    """
    if Refusal(refused.reason) not in _ABOUT_SOMEBODY:
        return ()
    terms = state.runs[request.run].terms
    return tuple(name for name, _ in _faulty(state, terms, request))


def _receipt_fault(
    state: State,
    terms: Opened,
    members: frozenset[str],
    request: ReleaseRequest,
    receipt: Receipt,
) -> _Fault:
    if fault := _standing(state, receipt.contributor):
        return fault
    if receipt.contributor not in members:
        return Refusal.NOT_IN_RUN, f"{receipt.contributor!r} is not in run {terms.run!r}"
    bound = (receipt.run, receipt.round, receipt.parameters_digest)
    if bound != (request.run, request.round, terms.parameters_digest):
        return Refusal.FOREIGN_RECEIPT, (
            f"the receipt of {receipt.contributor!r} is for another run, round or parameters"
        )
    key = bytes.fromhex(state.enrolled[receipt.contributor].verify_key)
    if not receipt.verify(key):
        return Refusal.SIGNATURE, f"the receipt of {receipt.contributor!r} is not signed by it"
    return None


def _of_an_older_version(run: str) -> str:
    return (
        f"run {run!r} was opened by an older version, whose admissions bind neither plan nor "
        "configuration"
    )


def _standing(state: State, name: str) -> _Fault:
    if name in state.revoked:
        return Refusal.REVOKED, f"{name!r} was revoked"
    if name not in state.enrolled:
        return Refusal.NOT_ENROLLED, f"{name!r} is not enrolled here"
    return None
