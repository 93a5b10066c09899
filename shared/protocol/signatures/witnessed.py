"""The word of a third party that a run, or an audit of it, was as it is at some time.

Evidence lies with its maker, who can make all of it again. So its head is brought to someone
who is not the auditee, a key authority's operator, who writes it into a log, numbers it among the
audits of its run, and signs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from calyx.shared.errors import ProtocolError
from calyx.shared.protocol.signatures.signed import (
    canonical,
    check_name,
    is_hex,
    record_from_json,
    record_to_json,
    verifies,
)

MOST_AUDITS = 10**6


@dataclass(frozen=True)
class HeadRequest:
    """What is to be signed.

    Attributes:
        run: the run's name in its ledgers, which no two runs share.
        run_head: SHA-256 over the hashes of all its files, its ledgers' heads and its
            configuration, hex.
        audit_head: last line of the chain of evidence of an audit, hex; empty for the run alone.
    """

    run: str
    run_head: str
    audit_head: str

    def to_json(self) -> str:
        """As text, for the file that is brought to the witness."""
        return record_to_json(self)

    @classmethod
    def from_json(cls, text: str) -> HeadRequest:
        """Inverse of `to_json`.

        Raises:
            ProtocolError: malformed.
        """
        request = record_from_json(cls, text)
        check_name("run", request.run)
        if not is_hex(request.run_head, 64) or not _is_head(request.audit_head):
            raise ProtocolError("a HeadRequest could not be read: a head is not a SHA-256 hash")
        return request


@dataclass(frozen=True)
class WitnessedHead:
    """A signed head.

    Attributes:
        run, run_head, audit_head: see `HeadRequest`.
        audit: how many different audits of this run the witness has signed, this one included; 0
            for the run alone.
        time: when it was written into the witness's log, ISO 8601 with its zone.
        log_index, log_hash: the line of that log.
        witness: Ed25519 key of who signs, hex.
        signature: over all of it.
    """

    run: str
    run_head: str
    audit_head: str
    audit: int
    time: str
    log_index: int
    log_hash: str
    witness: str
    signature: bytes = b""

    def signed(self, key: Ed25519PrivateKey) -> WitnessedHead:
        """The same with the signature of `key`, which it then names."""
        named = replace(self, witness=key.public_key().public_bytes_raw().hex())
        return replace(named, signature=key.sign(named.signed_bytes()))

    def signed_bytes(self) -> bytes:
        """What the signature covers."""
        heads = (self.run, self.run_head, self.audit_head, self.audit)
        return canonical(
            "witnessed-head", *heads, self.time, self.log_index, self.log_hash, self.witness
        )

    @property
    def is_genuine(self) -> bool:
        """Whether it was signed with the key that it names. Whose that is, only its owner says."""
        return verifies(bytes.fromhex(self.witness), self.signature, self.signed_bytes())

    def to_json(self) -> str:
        """As text."""
        return record_to_json(self)

    @classmethod
    def from_json(cls, text: str) -> WitnessedHead:
        """Inverse of `to_json`; the signature is checked by `is_genuine` only.

        Raises:
            ProtocolError: malformed.
        """
        read = record_from_json(cls, text)
        check_name("run", read.run)
        digests = all(is_hex(d, 64) for d in (read.run_head, read.log_hash, read.witness))
        is_numbered = 0 <= read.audit <= MOST_AUDITS and (read.audit > 0) == bool(read.audit_head)
        if not digests or not _is_head(read.audit_head) or not is_numbered or read.log_index < 0:
            raise ProtocolError("a WitnessedHead could not be read: a value is out of range")
        try:
            is_timed = datetime.fromisoformat(read.time).tzinfo is not None
        except ValueError:
            is_timed = False
        if not is_timed:
            raise ProtocolError("a WitnessedHead could not be read: it has no time")
        return read


def _is_head(text: str) -> bool:
    return text == "" or is_hex(text, 64)
