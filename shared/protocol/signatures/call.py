"""A device's signature over one call: over its path, its body and its time.

Flower signs a time stamp alone, so anyone who sees one call can make any other in its name for five
minutes. This signature stands beside Flower's. All it covers is in the headers (of the body, the
digest), so a server can tell who calls before it takes in a body.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from calyx.shared.errors import ProtocolError
from calyx.shared.protocol.signatures.signed import canonical, is_hex

# Flower's own two headers, and ours.
KEY_HEADER, TIME_HEADER = "flwr-public-key", "flwr-timestamp"
BODY_HEADER, SIGNATURE_HEADER = "calyx-body", "calyx-signature"
_MAX_HEADER = 1000


@dataclass(frozen=True)
class CallSignature:
    """Who made which call, and when; checked with `is_genuine`.

    Attributes:
        public_key: the device's, PEM.
        path: what is called.
        signed_at: UTC, ISO 8601 as sent.
        body_digest: SHA-256 of the body, hex.
        signature: ECDSA.
    """

    public_key: bytes
    path: str
    signed_at: str
    body_digest: str
    signature: bytes

    @classmethod
    def read(cls, path: str, headers: Mapping[str, str]) -> CallSignature:
        """Take it from the headers of a call, in lower case.

        Raises:
            ProtocolError: one is missing or malformed.
        """
        names = (KEY_HEADER, TIME_HEADER, BODY_HEADER, SIGNATURE_HEADER)
        key, time, body, signature = (headers.get(name, "") for name in names)
        try:
            if not all(0 < len(text) <= _MAX_HEADER for text in (key, time, signature)):
                raise ValueError("a header is missing")
            if not is_hex(body, 64):
                raise ValueError("no digest of the body")
            if datetime.fromisoformat(time).tzinfo is None:
                raise ValueError("a time without its zone")
            return cls(
                base64.b64decode(key, validate=True),
                path,
                time,
                body,
                base64.b64decode(signature, validate=True),
            )
        except ValueError as error:
            raise ProtocolError(f"the call is not signed as required: {error}") from None

    @property
    def age_s(self) -> float:
        """Seconds since it was signed, by this machine's clock."""
        return (datetime.now(UTC) - datetime.fromisoformat(self.signed_at)).total_seconds()

    @property
    def fingerprint(self) -> bytes:
        """Identifies the call, not the signature: one call can have many signatures."""
        return hashlib.sha256(self.public_key + self._text).digest()[:16]

    def is_genuine(self) -> bool:
        """Whether the key signed this call; false for malformed keys too."""
        try:
            key = load_pem_public_key(self.public_key)
            if not isinstance(key, ec.EllipticCurvePublicKey):
                return False
            key.verify(self.signature, self._text, ec.ECDSA(hashes.SHA384()))
        except (InvalidSignature, UnsupportedAlgorithm, ValueError):
            return False
        return True

    @property
    def _text(self) -> bytes:
        return _signed_bytes(self.path, self.signed_at, self.body_digest)


def call_headers(
    key: ec.EllipticCurvePrivateKey, path: str, signed_at: str, body: bytes
) -> dict[str, str]:
    """The headers that stand beside Flower's.

    Args:
        key: the device's, P-384.
        path: what is called.
        signed_at: the time in Flower's header.
        body: of the call.
    """
    body_digest = hashlib.sha256(body).hexdigest()
    signature = key.sign(_signed_bytes(path, signed_at, body_digest), ec.ECDSA(hashes.SHA384()))
    return {BODY_HEADER: body_digest, SIGNATURE_HEADER: base64.b64encode(signature).decode()}


def _signed_bytes(path: str, signed_at: str, body_digest: str) -> bytes:
    return canonical("fleet-call", path, signed_at, body_digest)
