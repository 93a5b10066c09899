"""What all signed records are made of: bytes to sign, signatures, exact JSON, derived keys."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields
from typing import Any, TypeVar, cast, get_type_hints

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from calyx.shared.errors import ProtocolError

MAX_NAME = 100

_T = TypeVar("_T")


def canonical(domain: str, *parts: str | int | bytes) -> bytes:
    """Bytes to sign, hash or bind: no two (domain, parts) of a domain give the same ones."""
    out = bytearray()
    for part in (f"calyx/{domain}/v1", *parts):
        raw = part if isinstance(part, bytes) else str(part).encode()
        out += len(raw).to_bytes(8, "big") + raw
    return bytes(out)


def check_name(kind: str, name: str) -> None:
    """Raise ProtocolError unless `name` is 1 to 100 printable characters."""
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise ProtocolError(f"the name of a {kind} must be 1 to {MAX_NAME} printable characters")


def is_hex(text: str, digits: int) -> bool:
    """Whether `text` is that many lower-case hexadecimal digits."""
    return re.fullmatch(f"[0-9a-f]{{{digits}}}", text) is not None


def verifies(verify_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` is Ed25519 over `message` by `verify_key`; malformed ones are not."""
    try:
        Ed25519PublicKey.from_public_bytes(verify_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def derive(secret: bytes, info: bytes) -> bytes:
    """32 bytes by HKDF-SHA-256: independent keys for different `info`."""
    return HKDF(hashes.SHA256(), 32, salt=None, info=info).derive(secret)


def record_to_json(record: Any) -> str:
    """A dataclass as text, bytes in hexadecimal."""
    values = {k: v.hex() if isinstance(v, bytes) else v for k, v in asdict(record).items()}
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def record_from_json(kind: type[_T], text: str) -> _T:
    """Read exactly the fields of `kind`, each of its exact type.

    Raises:
        ProtocolError: malformed.
    """
    hints = get_type_hints(kind)
    names = [f.name for f in fields(cast(Any, kind))]
    try:
        raw = json.loads(text)
        if not isinstance(raw, dict) or sorted(raw) != sorted(names):
            raise ValueError("the fields are not those expected")
        values = {n: bytes.fromhex(raw[n]) if hints[n] is bytes else raw[n] for n in names}
        if wrong := [n for n in names if type(values[n]) is not hints[n]]:
            raise ValueError(f"field {wrong[0]} has the wrong type")
    except (TypeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ProtocolError(f"a {kind.__name__} could not be read: {reason}") from error
    return kind(**values)
