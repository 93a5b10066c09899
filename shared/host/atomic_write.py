"""Files that survive a crash whole.

A file is written beside its place under a name that no one else uses, forced to the disk, and only
then put in its place; then the folder is forced to the disk too. So after a crash, a power cut or a
full disk its name leads to the old content or the new, never to a part, and to the new one as soon
as the call has returned. What a write that failed had made is removed. What a killed process left
stands beside the file, hidden, and goes with a later write of the same file.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SUFFIX = ".part"
# No write takes that long, so that a draft of this age is one that a killed process left.
_ABANDONED_S = 3600.0


def write_atomically(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write a file so that after a crash it holds the old or the new content, never a part.

    Args:
        path: of the file; one that is there, also a link, is replaced.
        content: all of it.
        mode: of the file, less the process's umask; it is never more open, from its first instant.

    Raises:
        OSError: it could not be written; the old file is as it was.
    """
    with draft_of(path, mode) as draft:
        _fill(draft, content)
        draft.replace(path)
    sync_folder(path.parent)


def create_atomically(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Like `write_atomically`, but a file that is there is never replaced.

    Raises:
        FileExistsError: something is at `path`.
        OSError: it could not be written; there is no such file.
    """
    with draft_of(path, mode) as draft:
        _fill(draft, content)
        publish_new(draft, path)


@contextmanager
def draft_of(path: Path, mode: int) -> Iterator[Path]:
    """An empty file beside `path` to be filled and put in its place; removed if it was not."""
    _remove_abandoned(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_SUFFIX}")
    # Nothing is written through a link, which a folder from elsewhere may hold at any name.
    os.close(os.open(draft, _NEW, mode))
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def publish_new(draft: Path, path: Path) -> None:
    """Give a draft, whose content is on the disk, its place, unless that is taken.

    Raises:
        FileExistsError: something is at `path`.
    """
    # A link, unlike a rename, never replaces what is already there.
    path.hardlink_to(draft)
    draft.unlink()
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Force a folder's entries to the disk."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def is_draft(name: str, of: str) -> bool:
    """Whether a file of this name is a draft of the file `of`."""
    return name.startswith(f".{of}.") and name.endswith(_SUFFIX)


def _fill(draft: Path, content: bytes) -> None:
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _remove_abandoned(path: Path) -> None:
    oldest = time.time() - _ABANDONED_S
    with os.scandir(path.parent) as entries:
        for entry in entries:
            if is_draft(entry.name, path.name):
                with suppress(FileNotFoundError):  # another process removed or placed it
                    if entry.stat(follow_symlinks=False).st_mtime < oldest:
                        Path(entry.path).unlink()
