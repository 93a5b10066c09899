"""A device's enrolment request: its public keys under one name, signed by each of them.

The file goes from the device to the operators of the server and of the key authority. It holds no
secret. Both private keys sign everything in it, so neither key can be taken out and enrolled under
another name or beside another key, and only the device itself can have made it. The nonce makes
each request one of a kind: the approver remembers it, and the same file is not approved twice.

What a signature cannot show is whose device it is: anyone can make a request under any name. For
that the owner reads the fingerprint out, and who approves has to state what he heard
(`EnrolmentRequest.check_fingerprint`).
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

from calyx.shared.errors import EnrolmentError, ProtocolError, full_text
from calyx.shared.protocol.names import check_device_name, find_alike
from calyx.shared.protocol.sealed.contributor_keys import ContributorKeys
from calyx.shared.protocol.signatures.signed import canonical, is_hex, verifies

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
        """Eight groups of four hex digits over name and keys, for people to compare."""
        return fingerprint(self.name, self.node_key, self.contributor)

    @property
    def node_public_key(self) -> ec.EllipticCurvePublicKey:
        """`node_key` as an object."""
        return p384_key(self.node_key)

    def check_fingerprint(self, stated: str) -> None:
        """Refuse a request that is not the one whose fingerprint the device's owner read out.

        Args:
            stated: all of it; capitals, spaces and dashes do not matter.

        Raises:
            EnrolmentError: it is another one, or not whole. Does not say which one it has: who
                approves would only copy it.
        """
        digits = re.sub(r"[\s:-]", "", stated).lower()
        if not is_hex(digits, 32):
            raise EnrolmentError(
                "a fingerprint is 32 hexadecimal digits in groups of four, and this is not one",
                hint=(
                    "ask the owner of the device for all of it; it is shown by: "
                    "calyx client enroll DIR --renew"
                ),
            )
        if digits != self.fingerprint.replace("-", ""):
            raise EnrolmentError(
                f"this is not the request of {self.name!r} with the fingerprint that you gave",
                hint=(
                    "do not approve it; get the file from the device's owner again, over another "
                    "channel"
                ),
            )

    def check_age(self, now: datetime | None = None) -> None:
        """Refuse a request that lay about too long.

        Raises:
            EnrolmentError: it is older than `VALID_DAYS`, or from the future.
        """
        now = now or datetime.now(UTC)
        made = datetime.fromisoformat(self.created_at)
        if not now - timedelta(days=VALID_DAYS) <= made <= now + _AHEAD:
            raise EnrolmentError(
                f"the request of {self.name!r} was made at {self.created_at}, and requests are "
                f"valid for {VALID_DAYS} days",
                hint="make a new one on that device with: calyx client enroll DIR --renew",
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
    signed = _signed_bytes(request)
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
        check_device_name(request.name)
        if (
            not is_hex(request.nonce, 32)
            or datetime.fromisoformat(request.created_at).tzinfo is None
        ):
            raise ValueError("nonce or time are malformed")
        p384_key(request.node_key)
    except (KeyError, TypeError, ValueError, RecursionError, ProtocolError) as error:
        reason = full_text(error)[:200]
        raise EnrolmentError(
            f"this is not a usable enrolment request: {reason}",
            hint="get the file request.json from the device's owner again",
        ) from error
    signed = _signed_bytes(request)
    if request.contributor.name != request.name or not _signed_by_both(
        request, signed, *signatures
    ):
        raise EnrolmentError(
            f"the enrolment request of {request.name!r} was altered on its way: its signatures do "
            "not match",
            hint="get it from the device again, over another channel",
        )
    return request


def fingerprint(name: str, node_key: str, contributor: ContributorKeys) -> str:
    """What people compare: half of a SHA-256 over a device's name and all of its public keys."""
    keys = _key_bytes(name, node_key, contributor)
    digest = hashlib.sha256(canonical("enrolment-request", *keys)).hexdigest()[:32]
    return "-".join(digest[i : i + 4] for i in range(0, 32, 4))


class KnownDevice(Protocol):
    """What a roster keeps of a device that it approved."""

    @property
    def node_key(self) -> str:
        """As in its request."""

    @property
    def nonces(self) -> tuple[str, ...]:
        """Of all its requests that were approved."""

    @property
    def approved_at(self) -> str:
        """ISO 8601."""


def check_unused(
    request: EnrolmentRequest, known: Mapping[str, KnownDevice], *, revoke: str
) -> None:
    """Refuse a request that came before, or whose key or name is another device's.

    Both rosters, the server's and the key authority's, keep this rule.

    Args:
        request: its signatures and age were checked.
        known: devices by name, revoked ones too.
        revoke: the command that revokes a device, but for its name.

    Raises:
        EnrolmentError: it is not to be approved.
    """
    for name, device in known.items():
        if request.nonce in device.nonces:
            raise EnrolmentError(
                f"this request was already used, at {device.approved_at} for {name!r}",
                hint=(
                    f"if that was not you, revoke it ({revoke} {name}); a device makes a new "
                    "request with: calyx client enroll DIR --renew"
                ),
            )
        if device.node_key == request.node_key and name != request.name:
            raise EnrolmentError(
                f"the key of {request.name!r} is that of {name!r}",
                hint="enrol the device in a folder of its own",
            )
    if alike := find_alike(request.name, known):
        raise EnrolmentError(
            f"{request.name!r} looks like {alike!r}, which is already known here",
            hint="choose another name for the new device",
        )


def _signed_by_both(
    request: EnrolmentRequest, signed: bytes, node_signature: bytes, contributor_signature: bytes
) -> bool:
    try:
        request.node_public_key.verify(node_signature, signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return verifies(request.contributor.verify_key, contributor_signature, signed)


def _signed_bytes(request: EnrolmentRequest) -> bytes:
    keys = _key_bytes(request.name, request.node_key, request.contributor)
    return canonical("enrolment-request", *keys, request.nonce, request.created_at)


def _key_bytes(name: str, node_key: str, contributor: ContributorKeys) -> tuple[str, str, str]:
    return name, node_key, contributor.to_json()


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
    if key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() != text:
        raise ValueError("the node key is followed by something")  # one key, one way to write it
    return key
