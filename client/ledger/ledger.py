"""What training has cost the records of this device: the client's privacy ledger.

>>> with Ledger.open(path, data_fingerprint=records.fingerprint) as ledger:
...     ledger.charge(run="r1", round=1, instruction=digest, event=plan.round_event,
...                   budget=policy.budget, repeatable=False)

* **Write-ahead.** `Ledger.charge` returns when the event is durably on disk; training starts
  afterwards. A crash can lose an update, never the record of what it cost.
* **Events, not epsilon.** What is stored is what was done. Epsilon is derived from all events
  together, over rounds, restarts and runs, each time it is asked for.
* **Fail closed.** A ledger that is damaged, altered, shortened, of other data or of an unknown
  schema answers every call with `LedgerError`, and so nothing trains.

What the hash chain can and cannot do. Entries are chained by SHA-256 from a random genesis, and the
count and the hash of the last one are kept in a head record that changes in the same transaction,
so damage, edits, and swapped, inserted and missing entries are found, including missing ones at the
end. The chain has no secret. Anyone who may write the file can rewrite the whole chain and the
head, restore an older copy, or delete the ledger and start again, and no check inside the file can
tell. A keyed hash would not change that: its key would have to be on the same device under the same
user, and an older copy has valid tags too. The ledger is there to keep a *server* within the
owner's limits, and that server has no access to the file. Owners who must also trust the people who
administer the device should note `Ledger.head_hash` elsewhere: a head that no longer occurs in the
chain proves a rewrite.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from calyx.client.ledger.entry import Entry
from calyx.client.ledger.schema import create_if_missing
from calyx.client.ledger.store import LedgerStore, read_foreign
from calyx.shared.errors import BudgetExceeded, LedgerError, PrivacyError
from calyx.shared.host.closable import Closable
from calyx.shared.privacy.accounting import Spent, Whom, spent, within
from calyx.shared.privacy.epsilon_text import delta_text, epsilon_text, promise_text
from calyx.shared.privacy.event import PrivacyEvent, Unit

__all__ = ["Budget", "Entry", "Ledger"]

BUSY_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Budget:
    """What may be spent on one data set in all.

    Attributes:
        epsilon: upper limit; infinite only where the owner allows unprotected training.
        delta: the delta at which epsilon is taken.
        unit: whom the limit protects. For a record client-level rounds count too, with twice
            their sensitivity (docs/adr/0017).

    Raises:
        PrivacyError: a value is not a budget.
    """

    epsilon: float
    delta: float
    unit: Unit

    def __post_init__(self) -> None:
        if not (self.epsilon > 0 and 0 < self.delta < 1 and self.unit in ("record", "client")):
            raise PrivacyError(
                f"{self} is not a budget: epsilon must be above 0, delta between 0 and 1, unit "
                "record or client"
            )

    def __str__(self) -> str:
        limit, delta = promise_text(self.epsilon), delta_text(self.delta)
        return f"epsilon {limit} at delta {delta} for each {self.unit}"


class Ledger(Closable):
    """An open ledger; use `open` or `read_only`, and close it."""

    def __init__(self, store: LedgerStore, *, writable: bool) -> None:
        self._store = store
        self._writable = writable
        self._entries: list[Entry] = []

    @classmethod
    def open(
        cls, path: Path, *, data_fingerprint: str, busy_timeout_s: float = BUSY_TIMEOUT_S
    ) -> Ledger:
        """Open the ledger of these records and check its whole chain; create it if missing.

        A new file gets mode 0600, and its folder, if that is missing too, 0700.

        Args:
            path: where the ledger lies.
            data_fingerprint: SHA-256 over the records, hex.
            busy_timeout_s: how long to wait for another process, seconds.

        Raises:
            LedgerError: it is of other data, unreadable, altered, in use, or of another schema.
        """
        if not data_fingerprint:
            raise LedgerError(
                f"ledger {path} needs the fingerprint of its data, and none was given"
            )
        create_if_missing(path, data_fingerprint)
        ledger = cls(LedgerStore(path, busy_timeout_s=busy_timeout_s, writable=True), writable=True)
        try:
            if ledger.data_fingerprint != data_fingerprint:
                raise LedgerError(
                    f"ledger {path} belongs to the data {ledger.data_fingerprint[:12]}..., but "
                    f"this device holds the data {data_fingerprint[:12]}...",
                    hint="name the ledger of these records",
                )
            ledger.entries()
        except BaseException:
            ledger.close()
            raise
        return ledger

    @classmethod
    def read_only(cls, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Ledger:
        """Open an existing ledger to look at it; nothing is created or charged.

        Raises:
            LedgerError: it is missing, unreadable or of another schema. Whether it was altered
                shows on the first question to it.
        """
        store = LedgerStore(path, busy_timeout_s=busy_timeout_s, writable=False)
        return cls(store, writable=False)

    @classmethod
    def inspect(cls, path: Path, below: Path) -> Ledger:
        """Read a ledger in a folder that may be someone else's, without touching the file.

        It is read whole and opened in memory, so that nothing beside it is used: a journal crafted
        for the purpose would have SQLite write, or delete files it names.

        Args:
            path: of the ledger.
            below: the run folder, which no path may leave.

        Raises:
            LedgerError: as `read_only`; or it is not a regular file of that folder, is too large,
                or was left half written by a killed process.
        """
        store = LedgerStore(
            path,
            busy_timeout_s=BUSY_TIMEOUT_S,
            writable=False,
            content=read_foreign(path, below),
        )
        return cls(store, writable=False)

    @property
    def ledger_id(self) -> str:
        """This ledger's own random number, hex: it stays with the file wherever that goes."""
        return self._store.identity.ledger_id

    @property
    def data_fingerprint(self) -> str:
        """SHA-256 over the records this ledger is about, hex."""
        return self._store.identity.data_fingerprint

    @property
    def head_hash(self) -> str:
        """Hash of the last entry, or the genesis hash: a witness of everything before it."""
        self.entries()
        return self._head()

    def charge(
        self,
        *,
        run: str,
        round: int,
        instruction: str,
        event: PrivacyEvent,
        budget: Budget,
        repeatable: bool,
    ) -> Entry:
        """Record the cost of one round, durably, before that round is trained.

        Args:
            run: identifier of the run, 1 to 200 printable characters.
            round: its round, 0 or more.
            instruction: SHA-256 of the server's instruction, hex.
            event: what the round costs.
            budget: what may be spent in all.
            repeatable: only where the same instruction of the same round is answered with the
                same bytes as before: a sealed reply that was kept, or a simulation whose noise
                is derived from the instruction. They reveal nothing new, so an existing entry
                is returned and nothing is charged.

        Raises:
            BudgetExceeded: all events with this one would cost more than the budget; nothing
                was recorded.
            LedgerError: it cannot be recorded; nothing was.
        """
        if not self._writable:
            raise LedgerError(f"ledger {self._store.path} was opened read-only")
        _check_names(run, round, instruction)
        with self._store.writing():
            self._catch_up()
            done = (run, round, instruction, event)
            if repeatable:
                for entry in self._entries:
                    if (entry.run, entry.round, entry.instruction, entry.event) == done:
                        return entry
            self._check_budget(event, budget)
            entry = Entry(
                sequence=len(self._entries) + 1,
                run=run,
                round=round,
                instruction=instruction,
                event=event,
                recorded_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                previous_hash=self._head(),
            ).sealed
            self._store.append(entry)
        self._entries.append(entry)
        return entry

    def check_affordable(self, run: str, event: PrivacyEvent, rounds: int, budget: Budget) -> None:
        """Check whether this many more rounds would stay within the budget; records nothing.

        Args:
            run: identifier of the run, for the message.
            event: what one of its rounds costs.
            rounds: how many are still to come.
            budget: what may be spent in all.

        Raises:
            BudgetExceeded: they would not, composed with all that was charged before.
        """
        self.entries()
        ahead = replace(event, count=event.count * rounds)
        self._check_budget(ahead, budget, f"{rounds} more rounds of run {run!r:.60}")

    def entries(self) -> tuple[Entry, ...]:
        """All charges, oldest first, checked.

        Raises:
            LedgerError: the ledger was altered; the message names the first bad entry.
        """
        with self._store.reading():
            self._catch_up()
        return tuple(self._entries)

    def events(self) -> tuple[PrivacyEvent, ...]:
        """The events of `entries`."""
        return tuple(entry.event for entry in self.entries())

    def spent(self, delta: float, whom: Whom) -> Spent:
        """What all charges together cost `whom` at `delta`."""
        return spent(self.events(), delta, whom)

    def spent_by_run(self, delta: float, whom: Whom) -> dict[str, Spent]:
        """What each run alone cost; epsilons do not add up to the total, which is smaller."""
        runs: dict[str, list[PrivacyEvent]] = {}
        for entry in self.entries():
            runs.setdefault(entry.run, []).append(entry.event)
        return {run: spent(events, delta, whom) for run, events in runs.items()}

    def verify(self) -> int:
        """Check file and chain from the start and return the number of entries.

        Raises:
            LedgerError: naming the first entry that was altered, added or removed.
        """
        self._entries.clear()
        self._store.check_pages()
        return len(self.entries())

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def _head(self) -> str:
        return self._entries[-1].hash if self._entries else self._store.identity.genesis

    def _catch_up(self) -> None:
        """Read and check what any process has added since the last time."""
        self._entries += self._store.entries_after(len(self._entries), self._head())

    def _check_budget(self, event: PrivacyEvent, budget: Budget, what: str = "this round") -> None:
        before = [entry.event for entry in self._entries]
        if within([*before, event], budget.epsilon, budget.delta, budget.unit):
            return
        now = spent(before, budget.delta, budget.unit).epsilon
        then = spent([*before, event], budget.delta, budget.unit).epsilon
        raise BudgetExceeded(
            f"{what} would raise the epsilon spent from {epsilon_text(now)} to "
            f"{epsilon_text(then)}; the budget is {budget}",
            hint="end the run here, or let the owner of the data raise the budget",
        )


def _check_names(run: str, round: int, instruction: str) -> None:
    hexadecimal = len(instruction) == 64 and set(instruction) <= set("0123456789abcdef")
    if not (0 < len(run) <= 200 and run.isprintable() and 0 <= round < 2**63 and hexadecimal):
        raise LedgerError(
            f"round {round} of run {run[:50]!r} cannot be recorded: a run has 1 to 200 printable "
            "characters, a round is at least 0, an instruction is 64 hex digits"
        )
