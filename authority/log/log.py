"""Append-only, hash-chained log of everything the authority decided.

JSON lines. Entry i holds ``index``, ``time`` (UTC), ``event`` with its fields, ``previous`` (the
hash of entry i-1) and ``hash``: SHA-256 over the canonical JSON of all the others. A line is
forced to disk before anything is done because of it.

What `AuthorityLog` finds on opening, and `verify` at any time:

* an altered, inserted, dropped or reordered entry: its hash or chain does not fit;
* a last line cut short by a crash: reported as torn. On opening it is moved to a file of its own
  beside the log and a `Recovered` entry says so. Nothing was done because of a torn entry;
* a log that lost whole entries from its end: it is shorter than the ``.head`` file says. Anyone who
  can write to both can shorten both; then the entry numbers and hashes that every release carries
  (`Released.log_index`, kept by the server) no longer match.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from calyx.authority.log.events import (
    Closed,
    Enrolled,
    Event,
    Failed,
    Granted,
    MoreRefused,
    Opened,
    Recovered,
    Refused,
    Repeated,
    Revoked,
    Witnessed,
    names_hash,
)
from calyx.shared.errors import LedgerError
from calyx.shared.hash_chain import ChainFormat, canonical_json
from calyx.shared.host.closable import Closable
from calyx.shared.host.private_files import replace_file

GENESIS = "0" * 64
CHAIN = ChainFormat(number="index", previous="previous", domain=b"calyx/log/v1\n")


_KINDS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind
    for kind in (
        Enrolled,
        Revoked,
        Opened,
        Granted,
        Repeated,
        Failed,
        Refused,
        MoreRefused,
        Closed,
        Recovered,
        Witnessed,
    )
}


@dataclass(frozen=True)
class Entry:
    """One line of the log."""

    index: int
    time: str
    event: Event
    previous: str
    hash: str


@dataclass(frozen=True)
class LogReport:
    """What `verify` found.

    Attributes:
        entries: all whole entries, in order.
        torn: bytes of an unfinished last line; empty if there is none.
    """

    entries: tuple[Entry, ...]
    torn: bytes

    @property
    def head(self) -> str:
        """Hash of the last entry."""
        return self.entries[-1].hash if self.entries else GENESIS


class AuthorityLog(Closable):
    """The log, open for appending by one process.

    Args:
        path: file, created 0600 if missing; ``path.head`` is beside it.
        clock: seconds since the epoch.

    Raises:
        LedgerError: altered, shortened, or in use by another process.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path, self._clock, self._is_broken = path, clock, False
        self._past: tuple[Entry, ...] = ()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise LedgerError(
                f"the log {path} is in use by another authority process",
                hint="stop that one first",
            ) from error
        try:
            report = verify(path)
            self._past = report.entries
            self._index, self._head = len(report.entries), report.head
            self._hashes = [bytes.fromhex(entry.hash) for entry in report.entries]
            if report.torn:
                self._recover(report.torn)
        except BaseException:
            os.close(self._file)
            raise

    def take_past(self) -> Iterator[Event]:
        """The events that were in the log when it was opened, once; they are not kept."""
        past, self._past = self._past, ()
        return (entry.event for entry in past)

    @property
    def head(self) -> tuple[int, str]:
        """Index and hash of the last entry; (-1, zeros) if there is none."""
        return self._index - 1, self._head

    def has(self, index: int, entry_hash: str) -> bool:
        """Whether the log has this entry: anyone who saw it saw this log, or a beginning of it."""
        return 0 <= index < len(self._hashes) and self._hashes[index].hex() == entry_hash

    @property
    def is_usable(self) -> bool:
        """Whether `append` can still work."""
        return not self._is_broken

    def append(self, events: Sequence[Event]) -> tuple[int, str]:
        """Write events; they are on disk when this returns.

        Returns:
            Index and hash of the last entry.

        Raises:
            LedgerError: they could not be written, for example because the disk is full. Some of
                them may be in the file, so the log accepts no more until it is opened again.
        """
        if self._is_broken:
            raise LedgerError(
                f"the log {self.path} failed before or is closed",
                hint="start the authority again",
            )
        index, head, lines, hashes = self._index, self._head, b"", []
        for event in events:
            body = {
                "index": index,
                "time": datetime.fromtimestamp(self._clock(), UTC).isoformat(),
                "event": type(event).__name__.lower(),
                **asdict(event),
                "previous": head,
            }
            head, index = CHAIN.hash_of(body), index + 1
            hashes.append(bytes.fromhex(head))
            lines += canonical_json({**body, "hash": head}) + b"\n"
        try:
            view = memoryview(lines)
            while view:
                view = view[os.write(self._file, view) :]
            os.fsync(self._file)
            _write_head(self.path, index, head)
        except OSError as error:
            self._is_broken = True
            raise LedgerError(
                f"the log {self.path} cannot be written ({error.strerror}); nothing was released",
                hint="free space and start the authority again",
            ) from error
        self._index, self._head = index, head
        self._hashes += hashes
        return self.head

    def close(self) -> None:
        """Release the file; nothing can be appended any more."""
        if self._file >= 0:
            os.close(self._file)
        # The number may soon belong to another file.
        self._file, self._is_broken = -1, True

    def _recover(self, torn: bytes) -> None:
        aside = self.path.with_name(f"{self.path.name}.torn-{self._index}")
        replace_file(aside, torn)
        os.ftruncate(self._file, os.fstat(self._file).st_size - len(torn))
        self.append([Recovered(len(torn), hashlib.sha256(torn).hexdigest())])


def verify(path: Path) -> LogReport:
    """Check a whole log and what its ``.head`` file says.

    Raises:
        LedgerError: missing, altered or shortened, with the number of the first bad entry.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise LedgerError(
            f"the log {path} cannot be read: {error.strerror}",
            hint="check the path and who may read it",
        ) from error
    whole, newline, torn = raw.rpartition(b"\n")
    entries = tuple(_entries(path, whole.split(b"\n") if newline else []))
    count, head = _read_head(path)
    if count > len(entries):
        raise LedgerError(
            f"the log {path} has {len(entries)} entries but had {count}: its end was cut off",
            hint="restore the file, and compare it with the log positions that the server recorded",
        )
    if count and entries[count - 1].hash != head:
        raise LedgerError(
            f"the log {path} is not the one that its .head file belongs to",
            hint="restore both from the same copy",
        )
    return LogReport(entries, torn)


def _entries(path: Path, lines: Sequence[bytes]) -> Iterator[Entry]:
    previous = GENESIS
    for index, line in enumerate(lines):
        try:
            body = json.loads(line)
            if fault := CHAIN.fault_of(body, index, previous):
                raise ValueError(fault)
            entry = Entry(index, body["time"], _event(body), previous, body["hash"])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            reason = " ".join(str(error).split())[:80]
            raise LedgerError(
                f"entry {index} of the log {path} was altered: {reason}",
                hint="keep the file as evidence and restore it from a copy",
            ) from error
        previous = entry.hash
        yield entry


def _event(body: Mapping[str, Any]) -> Event:
    fixed = ("index", "time", "event", "previous", "hash")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in body.items() if k not in fixed}
    kind, names = _KINDS[body["event"]], values.get("contributors")
    if kind is not Opened and isinstance(names, tuple):
        # Written before decisions held a count and a hash.
        values |= {"contributors": len(names), "contributors_hash": names_hash(names)}
    event: Event = kind(**values)
    return event


def _head_path(path: Path) -> Path:
    return path.with_name(path.name + ".head")


def _write_head(path: Path, count: int, head: str) -> None:
    # Written after the log: after a crash it may lag behind the log, never lead it.
    replace_file(_head_path(path), f"{count} {head}\n".encode())


def _read_head(path: Path) -> tuple[int, str]:
    try:
        count, head = _head_path(path).read_text(encoding="ascii").split()
        return int(count), head
    except FileNotFoundError:
        return 0, GENESIS
    except (OSError, ValueError) as error:
        raise LedgerError(
            f"{_head_path(path)} cannot be read",
            hint="restore it from a copy of the log's folder",
        ) from error
