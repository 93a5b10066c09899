"""Files that hold a secret: made 0600, never readable by others even for an instant.

::

    "CALYXKEY" | version 1 | mode | salt 16 | nonce 12 | body
    mode 0: body = payload | SHA-256(everything before)           no passphrase
    mode 1: body = ChaCha20-Poly1305(key, nonce, payload, header)  key = scrypt(passphrase, salt)

The header is authenticated, so a mode cannot be exchanged, and each file has its own salt, so the
nonce meets each key once. scrypt with N=2^15, r=8, p=1 (32 MiB, about 0.1 s) follows RFC 7914.
Python cannot wipe memory: anyone who can read the authority's memory has its keys.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from calyx.shared.errors import EncryptionError
from calyx.shared.host.private_files import create_private

_MAGIC = b"CALYXKEY\x01"
_PLAIN, _SEALED = 0, 1
_HEADER = len(_MAGIC) + 1 + 16 + 12


def write_secret(path: Path, payload: bytes, passphrase: bytes | None) -> None:
    """Create `path` with `payload`; an existing file is never replaced.

    Raises:
        EncryptionError: the file exists, or the passphrase is empty.
        OSError: it cannot be written.
    """
    if passphrase == b"":
        raise EncryptionError(
            "the passphrase is empty",
            hint="give one, or leave out --passphrase-file",
        )
    salt, nonce = os.urandom(16), os.urandom(12)
    mode = _PLAIN if passphrase is None else _SEALED
    header = _MAGIC + bytes([mode]) + salt + nonce
    if passphrase is None:
        content = header + payload
        content += hashlib.sha256(content).digest()
    else:
        key = _stretch(passphrase, salt)
        content = header + ChaCha20Poly1305(key).encrypt(nonce, payload, header)
    create_private(path, content)


def read_secret(path: Path, passphrase: bytes | None) -> bytes:
    """The payload of a file made by `write_secret`.

    Raises:
        EncryptionError: missing, readable by others, damaged, or another passphrase.
    """
    content = _read_private(path)
    header, body = content[:_HEADER], content[_HEADER:]
    if len(header) < _HEADER or not header.startswith(_MAGIC):
        raise EncryptionError(
            f"{path} is not a secret key file of this version",
            hint="restore it from a copy, or use the version that wrote it",
        )
    mode, salt, nonce = header[len(_MAGIC)], header[-28:-12], header[-12:]
    if mode == _PLAIN:
        payload, digest = body[:-32], body[-32:]
        if hashlib.sha256(header + payload).digest() != digest:
            raise EncryptionError(
                f"the secret key file {path} is damaged",
                hint="restore it from a copy",
            )
        return payload
    if passphrase is None:
        raise EncryptionError(
            f"the secret key file {path} needs its passphrase",
            hint="give it with --passphrase-file",
        )
    try:
        return ChaCha20Poly1305(_stretch(passphrase, salt)).decrypt(nonce, body, header)
    except InvalidTag as error:
        raise EncryptionError(
            f"the passphrase does not open the secret key file {path}, or the file is damaged",
            hint="check the passphrase, or restore the file from a copy",
        ) from error


def _read_private(path: Path) -> bytes:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise EncryptionError(
            f"the secret key file {path} cannot be opened: {error.strerror}",
            hint="check the path and who may read it",
        ) from error
    with os.fdopen(file, "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise EncryptionError(
                f"the secret key file {path} does not belong to this user",
                hint="run as the user who made it",
            )
        if status.st_mode & 0o077:
            raise EncryptionError(
                f"the secret key file {path} can be read by other users",
                hint=f"run: chmod 600 {path}, and make new keys if another user may have read it",
            )
        return stream.read()


def _stretch(passphrase: bytes, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=2**15, r=8, p=1).derive(passphrase)
