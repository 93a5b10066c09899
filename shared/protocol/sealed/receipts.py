"""What a contributor puts beside its ciphertexts: a signed receipt.

::

    authority ── Admission (signed; holds sealed TagKeys) ──▶ contributor    once a run
    contributor: pack, TagKeys.tagged, seal_slots, Receipt(...).signed
    contributor ── ciphertexts + Receipt ──▶ server ── sum + receipts ──▶ authority

A receipt says who sent which bytes; that the sum is really theirs is what tags are for.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

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

MAX_ROUND = 2**31 - 1


@dataclass(frozen=True)
class Receipt:
    """A contributor's signed word on one upload.

    Attributes:
        run, round: what the upload is for.
        contributor: enrolled name.
        parameters_digest: of the sealing parameters it was made with, 64 hex digits.
        upload_hash: `SealedVector.digest` of the upload.
        nonce: from `fresh_nonce`; the pads of the upload's tags were derived with it.
        signature: Ed25519 over all of it.
    """

    run: str
    round: int
    contributor: str
    parameters_digest: str
    upload_hash: str
    nonce: str
    signature: bytes = b""

    def signed(self, key: Ed25519PrivateKey) -> Receipt:
        """This receipt with the signature of its contributor."""
        self._check()
        return replace(self, signature=key.sign(self.signed_bytes()))

    def signed_bytes(self) -> bytes:
        """What the signature covers."""
        digests = (self.parameters_digest, self.upload_hash, self.nonce)
        return canonical("receipt", self.run, self.round, self.contributor, *digests)

    def verify(self, verify_key: bytes) -> bool:
        """Whether it was signed by the holder of `verify_key`."""
        return verifies(verify_key, self.signature, self.signed_bytes())

    def to_json(self) -> str:
        """As text, for the message that carries the upload."""
        return record_to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Receipt:
        """Read a receipt; its signature is checked by `verify` only.

        Raises:
            ProtocolError: malformed or out of range.
        """
        receipt = record_from_json(cls, text)
        receipt._check()
        return receipt

    def _check(self) -> None:
        check_name("run", self.run)
        check_name("contributor", self.contributor)
        digests = ((self.parameters_digest, 64), (self.upload_hash, 64), (self.nonce, 32))
        in_range = 1 <= self.round <= MAX_ROUND
        if not in_range or not all(is_hex(text, digits) for text, digits in digests):
            raise ProtocolError(
                f"the receipt of {self.contributor!r} has a round, digest or nonce out of range"
            )


def fresh_nonce() -> str:
    """The nonce of one upload: 16 bytes of system entropy, hex."""
    return secrets.token_hex(16)
