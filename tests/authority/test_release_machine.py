"""The release rules under any order of requests, faults, crashes and revocations."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from calyx.authority.log.events import Closed, Event, Failed, Granted, Refused, Revoked
from calyx.authority.release import MAX_FAILED_PROOFS, State, apply, decide, enrol, open_run
from calyx.shared.protocol.authority.interface import ReleaseRequest
from tests.authority.releases import KEYS, MINIMUM, NAMES, receipt, request, terms


class ReleaseMachine(RuleBasedStateMachine):
    """No sequence of calls releases a round twice, or fewer than the minimum.

    What was released is counted here, independently of the state that the rules keep.
    """

    @initialize()
    def start(self) -> None:
        self.events: list[Event] = []
        self.state = State()
        self.sums: dict[tuple[str, int], str] = {}
        self.granted: list[ReleaseRequest] = []
        self.failed: dict[str, int] = {}
        self.revoked: set[str] = set()
        self.closed: set[str] = set()
        for keys in KEYS.values():
            self._happens(enrol(self.state, keys))
        for run in ("run", "second"):
            self._happens(open_run(self.state, terms(run), MINIMUM, accept_untagged=False))

    def _happens(self, new: Event | None) -> None:
        assert new is not None
        self.events.append(new)
        self.state = apply(self.state, new)

    @rule(name=st.sampled_from(NAMES))
    def revoke(self, name: str) -> None:
        if len(self.revoked) < 2:
            self.revoked.add(name)
            self._happens(Revoked(name))

    @rule(run=st.just("second"))
    def close(self, run: str) -> None:
        if run not in self.closed and len(self.events) > 20:
            self.closed.add(run)
            self._happens(Closed(run))

    @rule(
        run=st.sampled_from(["run", "second"]),
        round=st.integers(1, 6),
        names=st.lists(st.sampled_from(NAMES), max_size=5)
        | st.lists(st.sampled_from(NAMES[:5]), min_size=3, max_size=5, unique=True),
        fault=st.sampled_from(["none"] * 6 + ["count", "round", "run", "signature"]),
        total=st.sampled_from(["5" * 64, "6" * 64]),
        fails=st.sampled_from([False] * 9 + [True]),
    )
    def ask(
        self, run: str, round: int, names: list[str], fault: str, total: str, fails: bool
    ) -> None:
        asked = replace(request(names, round, run), sum_hash=total)
        if names and fault != "none":
            first, *rest = asked.receipts
            changed = {
                "count": first,
                "round": receipt(names[0], round + 1, run),
                "run": receipt(names[0], round, "third"),
                "signature": replace(first, signature=bytes(64)),
            }[fault]
            count = asked.contributors + (fault == "count")
            asked = replace(asked, receipts=(changed, *rest), contributors=count)
        self._decide(asked, fault, fails)

    @rule(
        run=st.sampled_from(["run", "second"]),
        names=st.lists(st.sampled_from(NAMES[:5]), min_size=2, max_size=5, unique=True),
        skip=st.integers(0, 2),
        fails=st.sampled_from([False] * 4 + [True]),
    )
    def go_on(self, run: str, names: list[str], skip: int, fails: bool) -> None:
        """Mostly honest: the next round, with contributors of the run."""
        asked = request(names, self.state.runs[run].last_round + 1 + skip, run)
        self._decide(asked, "none", fails)

    @rule(data=st.data(), change=st.sampled_from(["nothing", "nothing", "order", "sum", "fewer"]))
    def ask_again(self, data: st.DataObject, change: str) -> None:
        if not self.granted:
            return
        asked = data.draw(st.sampled_from(self.granted))
        if change == "order":
            asked = replace(asked, receipts=asked.receipts[::-1])
        elif change == "sum":
            asked = replace(asked, sum_hash="7" * 64)
        elif change == "fewer":
            fewer = asked.receipts[1:]
            asked = replace(asked, receipts=fewer, contributors=len(fewer))
        self._decide(asked, "none", fails=False)

    def _decide(self, asked: ReleaseRequest, fault: str, fails: bool) -> None:
        decision = decide(self.state, asked)
        self._happens(decision)
        event(type(decision).__name__ + getattr(decision, "reason", ""))
        if isinstance(decision, Refused):
            return
        # From here on a sum would be decrypted.
        run, round = asked.run, asked.round
        names = [receipt.contributor for receipt in asked.receipts]
        assert fault == "none"
        assert run not in self.closed
        assert len(set(names)) == len(names) == asked.contributors >= MINIMUM
        assert set(names) <= set(NAMES[:5])
        if isinstance(decision, Granted):
            assert not set(names) & self.revoked
            assert all(other < round for r, other in self.sums if r == run)
            assert (run, round) not in self.sums
            self.sums[run, round] = asked.digest
            self.granted.append(asked)
        assert self.sums[run, round] == asked.digest
        if fails:
            self.failed[run] = self.failed.get(run, 0) + 1
            assert self.failed[run] <= MAX_FAILED_PROOFS
            self._happens(Failed(run, round, 0, "", asked.sum_hash, "proof", ""))

    @rule()
    def crash_and_replay(self) -> None:
        assert reduce(apply, self.events, State()) == self.state

    @invariant()
    def the_state_knows_every_release(self) -> None:
        for run, round in getattr(self, "sums", {}):
            assert self.state.runs[run].last_round >= round


TestReleaseMachine = ReleaseMachine.TestCase
TestReleaseMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
