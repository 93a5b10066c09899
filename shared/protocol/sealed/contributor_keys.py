"""A contributor's public keys, which it signs itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from calyx.shared.errors import ProtocolError
from calyx.shared.protocol.signatures.signed import (
    canonical,
    check_name,
    record_from_json,
    record_to_json,
    verifies,
)


@dataclass(frozen=True)
class ContributorKeys:
    """A contributor's public keys: its enrolment request.

    Attributes:
        name: stable name, unique at an authority.
        verify_key: Ed25519 public key, 32 bytes; receipts verify under it.
        seal_key: X25519 public key, 32 bytes; admissions are sealed to it.
        signature: by the signing key over the three above: proof that the sender holds it.
    """

    name: str
    verify_key: bytes
    seal_key: bytes
    signature: bytes = b""

    @classmethod
    def of(
        cls, name: str, signing: Ed25519PrivateKey, sealing: X25519PrivateKey
    ) -> ContributorKeys:
        """The request of the holder of these private keys."""
        verify_key = signing.public_key().public_bytes_raw()
        keys = cls(name, verify_key, sealing.public_key().public_bytes_raw())
        return replace(keys, signature=signing.sign(keys._signed_bytes()))

    def _signed_bytes(self) -> bytes:
        return canonical("enrolment", self.name, self.verify_key, self.seal_key)

    def to_json(self) -> str:
        """As text, keys in hexadecimal."""
        return record_to_json(self)

    @classmethod
    def from_json(cls, text: str) -> ContributorKeys:
        """Read and verify a request.

        Raises:
            ProtocolError: malformed, or not signed by its own key.
        """
        keys = record_from_json(cls, text)
        check_name("contributor", keys.name)
        authentic = verifies(keys.verify_key, keys.signature, keys._signed_bytes())
        if len(keys.seal_key) != 32 or not authentic:
            raise ProtocolError(
                f"the enrolment request of {keys.name!r} is not signed by its own key",
                hint="make a new one on that device",
            )
        return keys
