"""A folder that one process holds; the lock goes with the process, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from calyx.shared.errors import RunError, UsageError

# A pipe does not block, and the link itself is opened, which cannot be.
_OPEN = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NO_FILE = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO})


@contextmanager
def exclusive(path: Path, taken: str, hint: str) -> Iterator[None]:
    """Hold the lock file `path` until the block ends.

    The folder may be someone else's, with a link in the lock's place: what that leads to must not
    be emptied, nor made.

    Raises:
        UsageError: another process holds it, with `taken` and `hint`; or it is no regular file.
    """
    with _opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(taken, hint=hint) from None
        os.truncate(file, 0)
        os.write(file, str(os.getpid()).encode())
        yield


@contextmanager
def exclusive_waiting(path: Path) -> Iterator[None]:
    """Like `exclusive`, but wait for the process that holds the lock file; for short changes.

    Raises:
        UsageError: it is no regular file.
    """
    with _opened(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        file = os.open(path, _OPEN | os.O_CREAT, 0o600)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        raise _no_lock(path) from None
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise _no_lock(path)
        yield file
    finally:
        os.close(file)


def _no_lock(path: Path) -> UsageError:
    return UsageError(
        f"{path} is a link or not a regular file, where a lock should be",
        hint="remove it",
    )


def holder(path: Path) -> int | None:
    """The process that holds the lock file `path`, None if none does."""
    try:
        file = os.open(path, _OPEN)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(file, 20) or b"0") or None
    finally:
        os.close(file)
    return None


def stop_holder(path: Path, log: Path, timeout_s: float) -> bool:
    """Tell the process that holds a lock file to stop, and wait until it has; False without one.

    Args:
        path: the lock file.
        log: where to look if it does not stop.
        timeout_s: how long to wait.

    Raises:
        RunError: it does not stop.
    """
    pid = holder(path)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while holder(path) is not None:
        if time.monotonic() > deadline:
            raise RunError(f"process {pid} does not stop", hint=f"see {log}")
        time.sleep(0.05)
    return True
