"""Reading a folder that came from someone else: regular files of its own, and not too large ones.

A link in such a folder leads to any file of the reader, and the hash or the fault of that
file would stand in the answer. A pipe or device never ends, and a file with a hole can claim to be
of any size. So: every component below the folder is opened by itself and must be no link
(``O_NOFOLLOW`` from one open directory to the next, so that exchanging one meanwhile is no way
either), the file must be a regular one, and no larger than its reader says. The folder itself may
be a link: its name comes from the user.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# What is read into memory at once, and what is only hashed. Both are far above what runs write.
MOST_BYTES, MOST_HASHED_BYTES = 1 << 30, 16 << 30
_MOST_FILES = 200_000


class UnfitFile(OSError):
    """A file that is not read, with the reason as its text.

    An `OSError`, so that a caller reports it in its own words like any other.
    """

    def __str__(self) -> str:
        return str(self.strerror)


@contextmanager
def open_regular(path: Path, below: Path, most_bytes: int = MOST_BYTES) -> Iterator[BinaryIO]:
    """Open a regular file for reading.

    Args:
        path: a file below the folder.
        below: the folder that may hold anything.
        most_bytes: largest size.

    Raises:
        FileNotFoundError: it is not there.
        UnfitFile: it, or a folder on the way to it, is a link; it is no regular file, or too
            large, or not below the folder.
        OSError: it cannot be opened.
    """
    with _parent(path, below) as (folder, name):
        _check(os.stat(name, dir_fd=folder, follow_symlinks=False), most_bytes)
        # What was exchanged since that look is no link, does not block, and is looked at again.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        _check(os.fstat(descriptor), most_bytes)
        yield file


def read_regular(path: Path, below: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """The content of a regular file; arguments and errors as `open_regular`."""
    with open_regular(path, below, most_bytes) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise _too_large(most_bytes)
    return content


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder that is not hidden, nor in a hidden folder, in order of its path.

    Raises:
        UnfitFile: something is neither a folder nor a regular file, or there are too many.
        OSError: a folder cannot be read.
    """
    count = 0
    waiting = [folder]
    found: list[Path] = []
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                count += 1
                if count > _MOST_FILES:
                    raise UnfitFile(errno.EFBIG, f"there are more than {_MOST_FILES:,} files")
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                else:
                    _check_kind(entry.stat(follow_symlinks=False), entry.path)
                    found.append(Path(entry.path))
    yield from sorted(found)


def check_no_link(path: Path, below: Path) -> None:
    """See that nothing on the way to a path, as far as that exists, leads out of the folder.

    Raises:
        UnfitFile: it does.
    """
    for part in [*reversed(path.relative_to(below).parents), path.relative_to(below)]:
        if (below / part).is_symlink() and part.parts:
            raise UnfitFile(errno.ELOOP, f"{below / part} is a link")


@contextmanager
def _parent(path: Path, below: Path) -> Iterator[tuple[int, str]]:
    parts = path.relative_to(below).parts if path.is_relative_to(below) else ()
    if not parts or ".." in parts:
        raise UnfitFile(errno.EPERM, f"it is not below {below}")
    folder = os.open(below, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            mode = os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode
            if not stat.S_ISDIR(mode):
                what = "a link" if stat.S_ISLNK(mode) else "no folder"
                raise UnfitFile(errno.ENOTDIR, f"{part} on the way to it is {what}")
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner = os.open(part, flags, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder, parts[-1]
    finally:
        os.close(folder)


def _check(found: os.stat_result, most_bytes: int) -> None:
    _check_kind(found, "it")
    if found.st_size > most_bytes:
        raise _too_large(most_bytes)


def _check_kind(found: os.stat_result, name: str) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise UnfitFile(
            errno.ELOOP, f"{name} is a link, and links of a run folder are not followed"
        )
    if not stat.S_ISREG(found.st_mode):
        raise UnfitFile(errno.EINVAL, f"{name} is no regular file")


def _too_large(most_bytes: int) -> UnfitFile:
    return UnfitFile(errno.EFBIG, f"it is larger than {most_bytes:,} bytes")
