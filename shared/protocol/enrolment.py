"""A device's enrolment request: its public keys under one name, signed by each of them.

The file goes from the device to the operators of the server and of the key authority. It holds no
secret. Both private keys sign everything in it, so neither key can be taken out and enrolled under
another name or beside another key, and only the device itself can have made it. The nonce makes
each request one of a kind: whoever approves remembers it, and the same file is not approved twice.

What a signature cannot show is whose device it is. For that the operator compares the fingerprint
with what the device's owner reads out.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

from shared.errors import EnrolmentError, ProtocolError
from shared.protocol.contributor_keys import ContributorKeys
from shared.protocol.signed import canonical, check_name, is_hex, verifies

FORMAT = "calyx-enrolment-1"
VALID_DAYS = 14
_MAX_BYTES = 16 * 1024
_AHEAD = timedelta(minutes=10)


@dataclass(frozen=True)
class EnrolmentRequest:
    """A request whose signatures were checked.

    Attributes:
        name: the device's name, one line.
        node_key: NIST P-384 public key, OpenSSH format: Flower's key of the node.
        contributor: public keys for sealed sums.
        nonce: 32 hex digits, of this request alone.
        created_at: ISO 8601, UTC.
    """

    name: str
    node_key: str
    contributor: ContributorKeys
    nonce: str
    created_at: str

    @property
    def fingerprint(self) -> str:
        """Eight groups of four hex digits over both keys, for people to compare."""
        digest = hashlib.sha256(_signed_bytes(self, with_nonce=False)).hexdigest()[:32]
        return "-".join(digest[i : i + 4] for i in range(0, 32, 4))

    @property
    def node_public_key(self) -> ec.EllipticCurvePublicKey:
        """`node_key` as an object."""
        return p384_key(self.node_key)

    def check_age(self, now: datetime | None = None) -> None:
        """Refuse a request that lay about too long.

        Raises:
            EnrolmentError: it is older than `VALID_DAYS`, or from the future.
        """
        now = now or datetime.now(UTC)
        made = datetime.fromisoformat(self.created_at)
        if not now - timedelta(days=VALID_DAYS) <= made <= now + _AHEAD:
            raise EnrolmentError(
                f"the request of {self.name!r} is of {self.created_at} and requests are good for "
                f"{VALID_DAYS} days; make a new one on that device: calyx client enroll DIR --renew"
            )


def make_request(
    name: str,
    node_key: ec.EllipticCurvePrivateKey,
    signing: Ed25519PrivateKey,
    contributor: ContributorKeys,
) -> str:
    """The text of a new request.

    Args:
        name: the device's name.
        node_key: P-384.
        signing: the key that `contributor` verifies under.
        contributor: the public keys for sealed sums.
    """
    public = node_key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    request = EnrolmentRequest(name, public, contributor, secrets.token_hex(16), created_at)
    signed = _signed_bytes(request, with_nonce=True)
    content = {
        "format": FORMAT,
        "name": name,
        "node_key": public,
        "contributor": json.loads(contributor.to_json()),
        "nonce": request.nonce,
        "created_at": created_at,
        "node_signature": node_key.sign(signed, ec.ECDSA(hashes.SHA384())).hex(),
        "contributor_signature": signing.sign(signed).hex(),
    }
    return json.dumps(content, indent=1) + "\n"


def read_request(text: str) -> EnrolmentRequest:
    """Read a request and check both signatures.

    Raises:
        EnrolmentError: it is no request, or was altered.
    """
    try:
        if len(text) > _MAX_BYTES:
            raise ValueError("it is too long")
        raw = json.loads(text)
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise ValueError(f"it is not of the form {FORMAT}")
        fields = {k: raw[k] for k in ("name", "node_key", "nonce", "created_at")}
        if not all(isinstance(value, str) for value in fields.values()):
            raise ValueError("a field is not text")
        signatures = [bytes.fromhex(raw[f"{key}_signature"]) for key in ("node", "contributor")]
        request = EnrolmentRequest(
            contributor=ContributorKeys.from_json(json.dumps(raw["contributor"])), **fields
        )
        check_name("device", request.name)
        if (
            not is_hex(request.nonce, 32)
            or datetime.fromisoformat(request.created_at).tzinfo is None
        ):
            raise ValueError("nonce or time are malformed")
        p384_key(request.node_key)
    except (KeyError, TypeError, ValueError, RecursionError, ProtocolError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EnrolmentError(f"this is no enrolment request that can be used: {reason}") from error
    signed = _signed_bytes(request, with_nonce=True)
    if request.contributor.name != request.name or not _signed_by_both(
        request, signed, *signatures
    ):
        raise EnrolmentError(
            f"the enrolment request of {request.name!r} was altered on its way: its signatures do "
            "not fit; get it again from the device, by another way"
        )
    return request


def contributor_keys(text: str) -> ContributorKeys:
    """The part of a request that a key authority needs; it may also come without the rest.

    Raises:
        EnrolmentError, ProtocolError: as `read_request`, or too old.
    """
    if '"format"' not in text:
        return ContributorKeys.from_json(text)
    request = read_request(text)
    request.check_age()
    return request.contributor


def _signed_by_both(
    request: EnrolmentRequest, signed: bytes, node_signature: bytes, contributor_signature: bytes
) -> bool:
    try:
        request.node_public_key.verify(node_signature, signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return verifies(request.contributor.verify_key, contributor_signature, signed)


def _signed_bytes(request: EnrolmentRequest, *, with_nonce: bool) -> bytes:
    keys = (request.name, request.node_key, request.contributor.to_json())
    once = (request.nonce, request.created_at) if with_nonce else ()
    return canonical("enrolment-request", *keys, *once)


def p384_key(text: str) -> ec.EllipticCurvePublicKey:
    """A public key in OpenSSH format.

    Raises:
        ValueError: it is no key, or not on the curve P-384.
    """
    try:
        key = load_ssh_public_key(text.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError("the node key is of an unknown kind") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ValueError("the node key is not on the curve P-384")
    return key
