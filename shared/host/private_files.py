"""Files and folders that only their owner can read, made so from their first instant."""

from __future__ import annotations

from pathlib import Path

from calyx.shared.errors import EncryptionError
from calyx.shared.host.atomic_write import create_atomically, write_atomically

_OWNER_ONLY = 0o600


def create_private(path: Path, content: bytes) -> None:
    """Create a file that only its owner can read, whole and on the disk, or not at all.

    Raises:
        EncryptionError: it exists.
    """
    try:
        create_atomically(path, content, _OWNER_ONLY)
    except FileExistsError as error:
        raise EncryptionError(
            f"{path} exists, and a secret key file is never replaced",
            hint="choose another folder",
        ) from error


def replace_file(path: Path, content: bytes) -> None:
    """Atomically give a file that only its owner can read new content, forced to the disk."""
    write_atomically(path, content, _OWNER_ONLY)


def private_directory(path: Path) -> None:
    """Create a folder that only its owner can enter, or see that it is one.

    Raises:
        EncryptionError: others can enter it.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        raise EncryptionError(
            f"the folder {path} can be read by other users",
            hint=f"run: chmod 700 {path}",
        )
