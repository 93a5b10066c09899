"""Who takes part in which round: a pure state machine, no messages, no clocks, no files.

Rules
-----
1. A client is *active*, *declined* or *quarantined*. Only active ones are asked.
2. The cohort of a round depends only on the seed, the round and the active clients that are
   present. In a simulation all are always present.
3. A client whose reply breaks the protocol (NaN, wrong shapes, absurd counts, too large) is
   quarantined for the rest of the run. The reply is not used.
4. A client that refuses for good (its policy, its budget, its ledger), or cannot carry out the run
   (its model, its records, its device), is declined for the rest of the run. Refusing is its
   right; it is listed, not punished.
5. A client that fails or is late may be asked again.
6. A round with at least `min_replies` accepted replies is aggregated, otherwise it is skipped and
   the model stays as it was.
7. When fewer than `min_replies` clients are active the run cannot continue.
8. A client that was asked counts as having taken part: its ledger was charged before it trained.
9. A round whose sum is refused because of clients that the key authority names is asked once more
   without them (`calyx.server.round.releasing`).
10. A run that keeps losing rounds stops by itself (`calyx.server.round.lost_rounds`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from calyx.shared.errors import RoundError


class Standing(StrEnum):
    """What the server thinks of a client."""

    ACTIVE = "active"
    DECLINED = "declined"
    QUARANTINED = "quarantined"


@dataclass(frozen=True)
class Member:
    """One client of the run.

    Attributes:
        client: stable name.
        declared_records: its public record count.
        standing: see the rules above.
        reason: why it is not active, empty otherwise.
        rounds_asked: rounds in which it may have spent budget.
    """

    client: str
    declared_records: int
    standing: Standing = Standing.ACTIVE
    reason: str = ""
    rounds_asked: int = 0


@dataclass(frozen=True)
class ClientOutcome:
    """A client and what was wrong with it in this round."""

    client: str
    reason: str


@dataclass
class RoundRecord:
    """What happened in one round; filled while replies arrive."""

    round: int
    asked: list[str]
    ok: list[str] = field(default_factory=list)
    declined: list[ClientOutcome] = field(default_factory=list)
    failed: list[ClientOutcome] = field(default_factory=list)
    rejected: list[ClientOutcome] = field(default_factory=list)

    @property
    def silent(self) -> list[str]:
        """Clients that were asked and did not answer in time."""
        heard = {*self.ok, *(n.client for n in self.declined + self.failed + self.rejected)}
        return [client for client in self.asked if client not in heard]

    def close(self) -> list[str]:
        """End the round: clients that are still silent count as late. Returns them."""
        late = self.silent
        self.failed += [ClientOutcome(client, "no answer before the deadline") for client in late]
        return late

    def reopen(self, declined: Sequence[ClientOutcome], rejected: Sequence[ClientOutcome]) -> None:
        """Let clients whose replies counted be asked once more, except those noted here."""
        self.ok = []
        self.declined += declined
        self.rejected += rejected

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> RoundRecord:
        """Inverse of `dataclasses.asdict`."""
        outcomes = {
            kind: [ClientOutcome(**outcome) for outcome in fields[kind]]
            for kind in ("declined", "failed", "rejected")
        }
        return cls(int(fields["round"]), list(fields["asked"]), list(fields["ok"]), **outcomes)


class Roster:
    """All clients of a run and their standing."""

    def __init__(self, members: Iterable[Member], seed: int) -> None:
        self._members = {m.client: m for m in sorted(members, key=lambda m: _natural(m.client))}
        self._seed = seed

    def __iter__(self) -> Any:
        return iter(self._members.values())

    def __getitem__(self, client: str) -> Member:
        return self._members[client]

    @property
    def active(self) -> list[Member]:
        """Clients that may be asked, in their natural order."""
        return [m for m in self._members.values() if m.standing is Standing.ACTIVE]

    def cohort(
        self,
        server_round: int,
        size: int,
        min_replies: int,
        present: Collection[str] | None = None,
    ) -> list[str]:
        """Choose the clients of a round.

        Args:
            server_round: its number.
            size: how many, at most.
            min_replies: how many, at least.
            present: clients that can be asked; None means all.

        Raises:
            RoundError: fewer than `min_replies` clients are active and present.
        """
        active = [m.client for m in self.active if present is None or m.client in present]
        if len(active) < min_replies:
            out = [f"{m.client}: {m.reason}" for m in self if m.standing is not Standing.ACTIVE]
            raise RoundError(
                f"only {len(active)} of the {min_replies} clients that a round needs are left "
                f"({'; '.join(out[:3]) or 'the others do not answer'})",
                hint="repair the others, or start a run that needs fewer clients",
            )
        drawn = sorted(active, key=lambda client: _lot(self._seed, server_round, client))[:size]
        return sorted(drawn, key=_natural)

    def asked(self, clients: Iterable[str]) -> None:
        """Rule 8."""
        for client in clients:
            member = self._members[client]
            self._members[client] = replace(member, rounds_asked=member.rounds_asked + 1)

    def apply(self, record: RoundRecord) -> None:
        """Rules 3 and 4, after a round."""
        for outcome in record.rejected:
            self._set(outcome, Standing.QUARANTINED)
        for outcome in record.declined:
            self._set(outcome, Standing.DECLINED)

    def _set(self, outcome: ClientOutcome, standing: Standing) -> None:
        member = self._members[outcome.client]
        self._members[outcome.client] = replace(member, standing=standing, reason=outcome.reason)

    def to_json(self) -> list[dict[str, Any]]:
        """For the checkpoint."""
        return [asdict(member) for member in self]

    @classmethod
    def from_json(cls, members: Iterable[Mapping[str, Any]], seed: int) -> Roster:
        """Inverse of `to_json`."""
        return cls((Member(**{**m, "standing": Standing(m["standing"])}) for m in members), seed)


def is_enough(record: RoundRecord, min_replies: int) -> bool:
    """Rule 6."""
    return len(record.ok) >= min_replies


def _lot(seed: int, server_round: int, client: str) -> bytes:
    return hashlib.sha256(f"cohort/{seed}/{server_round}/{client}".encode()).digest()


def _natural(client: str) -> tuple[int, int, str]:
    """Order 2 before 10, and numbers before names."""
    return (0, int(client), client) if client.isdecimal() else (1, 0, client)
