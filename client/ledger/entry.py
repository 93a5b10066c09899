"""One line of the privacy ledger and the hash chain that ties the lines together.

``hash(entry) = SHA-256(canonical JSON of the entry, the hash of the entry before it included)``;
the first entry follows the genesis hash, which covers the schema version, a random ledger id, the
fingerprint of the data and the time of creation. Anyone who changes, removes, inserts or reorders
lines has to rewrite every hash after them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from calyx.shared.errors import PrivacyError
from calyx.shared.hash_chain import ChainFormat, canonical_json
from calyx.shared.privacy.event import PrivacyEvent

SCHEMA_VERSION = 1
CHAIN = ChainFormat(number="sequence", previous="previous_hash")


@dataclass(frozen=True)
class Identity:
    """What a ledger is about, written once when it is created.

    Attributes:
        ledger_id: 128 random bits, hex, so that no two ledgers share a chain.
        data_fingerprint: SHA-256 over the records that the ledger accounts for, hex.
        created_at: UTC, ISO 8601.
    """

    ledger_id: str
    data_fingerprint: str
    created_at: str

    @property
    def genesis(self) -> str:
        """The hash that the first entry follows, hex."""
        return CHAIN.hash_of({"schema": SCHEMA_VERSION, **asdict(self)})


@dataclass(frozen=True)
class Entry:
    """One charge.

    Attributes:
        sequence: 1, 2, 3, ... without gaps.
        run: identifier of the run.
        round: round of that run.
        instruction: SHA-256 of the server's instruction, hex.
        event: what the round costs.
        recorded_at: UTC, ISO 8601.
        previous_hash: hash of the entry before, or the genesis hash.
        hash: SHA-256 over all of the above, hex.
    """

    sequence: int
    run: str
    round: int
    instruction: str
    event: PrivacyEvent
    recorded_at: str
    previous_hash: str
    hash: str = ""

    @property
    def sealed(self) -> Entry:
        """The same entry with the hash that its content requires."""
        return replace(self, hash=CHAIN.hash_of(self._fields))

    @property
    def row(self) -> tuple[Any, ...]:
        """The stored form, fields in the order above, the event as JSON text."""
        event = canonical_json(self.event.as_dict()).decode()
        return tuple({**self._fields, "event": event}.values())

    @property
    def _fields(self) -> dict[str, Any]:
        # The event as it is stored: a field that a later version adds changes no old hash.
        return {**asdict(self), "event": self.event.as_dict()}

    @classmethod
    def from_row(cls, row: tuple[Any, ...], sequence: int, previous_hash: str) -> Entry:
        """Read the stored entry that must be number `sequence` and follow `previous_hash`.

        Raises:
            ValueError: it is not that entry, or it was altered; the text says what does not fit.
        """
        number, run, server_round, instruction, event_text, *rest = row
        try:
            event = PrivacyEvent.from_dict(json.loads(event_text))
            entry = cls(number, run, server_round, instruction, event, *rest)
            fault = CHAIN.fault_of(entry._fields, sequence, previous_hash)
        except (TypeError, ValueError, RecursionError, PrivacyError):
            raise ValueError("its content cannot be read") from None
        if fault:
            raise ValueError(fault)
        return entry
