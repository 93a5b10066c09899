"""Temporary folders with secrets, that do not outlive their process for long.

A process that ends, by an error or because it was told to, removes its own. What a killed one left
is removed by the next that makes one: a folder is held by a lock that goes with its process, so
one that no process holds is abandoned.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A private folder for the length of a block; removes those that killed processes left.

    Args:
        prefix: begins its name, and those of the folders that are looked at.
    """
    _sweep(prefix)
    path, lock = _made(prefix)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _made(prefix: str) -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix))
        # Between its making and its lock another process may have taken it for one left behind.
        if (lock := _lock(path)) is not None:
            return path, lock


def _lock(path: Path) -> int | None:
    """Hold a folder of ours; None if another process does, or it is gone."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours, now = os.fstat(file), os.lstat(path)
        if ours.st_uid == os.getuid() and stat.S_ISDIR(now.st_mode) and ours.st_ino == now.st_ino:
            return file
    except OSError:
        pass
    os.close(file)
    return None


def _sweep(prefix: str) -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        if (lock := _lock(path)) is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)
