"""Taking a run folder: one process at a time writes there, and a new folder belongs to no one else.

Two runs in one folder would leave one plausible mixture of both. So a folder is locked from before
its first file until the run or its resumption has ended, and while a report or an audit is written.
The lock is the kernel's and goes with the process, however that ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from calyx.shared.errors import ConfigError, RunError
from calyx.shared.host.atomic_write import is_draft
from calyx.shared.host.process_lock import exclusive

# Hidden: evidence binds no hidden files.
LOCK_NAME = ".lock"
# What is made before `config.toml`: a run that was killed by then had not begun.
_FIRST_FILES = ("run.json", "partition.npz", "environment.json")
_UNFINISHED = frozenset({LOCK_NAME, "ledgers", "batches", *_FIRST_FILES})
_RUNS = Path("runs")
# Room for the longest path within a run folder: evidence, and TensorBoard with a host's name.
_DEEPEST_BYTES = 200
# Used where a file system does not tell.
_NAME_BYTES, _PATH_BYTES = 255, 4096


def owned(path: Path) -> AbstractContextManager[None]:
    """Hold a run folder that exists.

    Raises:
        UsageError: another process has it.
    """
    taken = f"another calyx command writes in {path}"
    return exclusive(path / LOCK_NAME, taken, "wait until it has ended")


@contextmanager
def claimed(out: Path | None, name: str) -> Iterator[Path]:
    """Make the folder of a run that begins, and hold it.

    Args:
        out: the folder, which may exist and be empty; None for a new one under ``runs``.
        name: of the preset, for the folder's name.

    Raises:
        ConfigError: it holds something already, or its name is too long.
        UsageError: another process has it.
        RunError: it cannot be made.
    """
    try:
        path = _made_under_runs(name) if out is None else _made(out)
    except OSError as error:
        raise RunError(
            f"{error.filename} cannot be written: {error.strerror}",
            hint="name another folder with --out",
        ) from None
    with owned(path):
        check_vacant(path, resumed=True)
        yield path


def check_vacant(path: Path, *, resumed: bool) -> None:
    """See that a run can begin in `path`, without making anything.

    Args:
        path: the folder.
        resumed: what a run left that was killed before it began is no hindrance.

    Raises:
        ConfigError: it holds a run or other files, or its name is too long.
    """
    check_length(path)
    if not path.exists():
        return
    if not path.is_dir() or any(not _is_left(e.name, resumed) for e in path.iterdir()):
        raise ConfigError(
            f"{path} already exists",
            hint="continue it with --resume, or name another folder with --out",
        )


def _is_left(name: str, resumed: bool) -> bool:
    """Whether a file of this name is no hindrance; see `check_vacant`."""
    if not resumed:
        return name == LOCK_NAME
    drafts = (is_draft(name, of) for of in (*_FIRST_FILES, "config.toml"))
    return name in _UNFINISHED or any(drafts)


def check_length(path: Path) -> None:
    """See that a folder of this name, and what will be in it, can be made.

    Raises:
        ConfigError: it cannot.
    """
    absolute = path.absolute()
    there = next(p for p in (absolute, *absolute.parents) if _exists(p))
    longest = max(absolute.parts, key=lambda part: len(os.fsencode(part)))
    most = _limit(there, "PC_NAME_MAX", _NAME_BYTES)
    if len(os.fsencode(longest)) > most:
        raise ConfigError(
            f"the name of a folder has at most {most} bytes here; that of {longest[:40]}... has "
            f"{len(os.fsencode(longest))}",
            hint="name a shorter one with --out",
        )
    most = _limit(there, "PC_PATH_MAX", _PATH_BYTES) - _DEEPEST_BYTES
    if len(os.fsencode(absolute)) > most:
        raise ConfigError(
            f"the path of a run folder has at most {most} bytes here; this one has "
            f"{len(os.fsencode(absolute))}",
            hint="name a shorter one with --out",
        )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long to be asked for
        return False


def _limit(path: Path, name: str, otherwise: int) -> int:
    try:
        return os.pathconf(path, name)
    except (OSError, ValueError):
        return otherwise


def default_place(name: str) -> Path:
    """``runs/NAME-TIME``, which need not be free."""
    return _RUNS / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _made_under_runs(name: str) -> Path:
    """Two runs may begin in the same second; the one that makes a folder first has it."""
    first = default_place(name)
    first.parent.mkdir(parents=True, exist_ok=True)
    path, number = first, 2
    while True:
        try:
            path.mkdir()
        except FileExistsError:
            path, number = first.with_name(f"{first.name}-{number}"), number + 1
        else:
            return path
