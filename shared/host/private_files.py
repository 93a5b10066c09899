"""Files and folders that only their owner can read, made so from their first instant."""

from __future__ import annotations

import os
from pathlib import Path

from calyx.shared.errors import EncryptionError


def create_private(path: Path, content: bytes) -> None:
    """Create a file that only its owner can read, whole and on the disk, or not at all.

    Raises:
        EncryptionError: it exists.
    """
    temporary = path.with_name(path.name + ".new")
    # What a crash left behind was never complete; nobody refers to it.
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(temporary, flags, 0o600)
    try:
        with os.fdopen(file, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        # A link, unlike a rename, never replaces a key that is already there.
        os.link(temporary, path)
    except FileExistsError as error:
        raise EncryptionError(
            f"{path} exists, and a secret key file is never replaced",
            hint="choose another folder",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Atomically give a file (0600) new content, forced to the disk."""
    temporary = path.with_name(path.name + ".new")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(file, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def sync_directory(path: Path) -> None:
    """Force a folder's entries to the disk."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
