"""An open ledger file: durable transactions, checked reading, errors in the project's terms.

* ``synchronous = EXTRA`` with a rollback journal: COMMIT returns after the data *and* the removal
  of the journal are on disk, so that not even a power cut takes back an acknowledged charge, and
  a closed ledger is one single file.
* Nothing is believed because it was read: each entry must fit the hash chain.
* Every SQLite error becomes a `LedgerError` of one line.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from calyx.client.ledger.entry import SCHEMA_VERSION, Entry, Identity
from calyx.client.ledger.schema import APPLICATION_ID, expected_schema, schema_of
from calyx.shared.errors import LedgerError
from calyx.shared.host.regular_file import read_regular

_IN_USE = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_NO_SPACE = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
_READ_ONLY = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM})


class LedgerStore:
    """One open ledger file.

    Args:
        path: an existing ledger.
        busy_timeout_s: how long to wait for another process.
        writable: whether charges will be written.
        content: what the file held; it is opened in memory and the file is left alone.

    Raises:
        LedgerError: the file is missing, is not a ledger, is damaged, or has a newer schema.
    """

    def __init__(
        self, path: Path, *, busy_timeout_s: float, writable: bool, content: bytes | None = None
    ) -> None:
        self.path = path
        self._busy_timeout_s = busy_timeout_s
        if content is None:
            _check_file(path)
            # rw also for reading: a charge that a killed process left half done is rolled back.
            name = f"{path.absolute().as_uri()}?mode=rw"
        else:
            name = ":memory:"
        with self._errors():
            self._database = sqlite3.connect(
                name, uri=content is None, isolation_level=None, timeout=busy_timeout_s
            )
        try:
            with self._errors():
                if content is not None:
                    self._database.deserialize(content)
                self._prepare(writable)
                self.identity = self._read_identity()
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the write lock; commit durably at the end, or leave no trace on any error."""
        with self._errors():
            self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            with self._errors():
                self._database.execute("COMMIT")
        except BaseException:
            # SQLite may have rolled back by itself; what counts is the first error.
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise

    @contextmanager
    def reading(self) -> Iterator[None]:
        """See one state of the ledger, no matter what other processes write meanwhile."""
        with self._errors():
            self._database.execute("BEGIN")
        try:
            yield
        finally:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")

    def entries_after(self, sequence: int, previous_hash: str) -> list[Entry]:
        """Read and check all entries after number `sequence`, up to the recorded head.

        Raises:
            LedgerError: naming the first entry that was altered, added or removed.
        """
        with self._errors():
            rows = self._database.execute(
                "SELECT sequence, run, round, instruction, event, recorded_at, previous_hash, hash"
                " FROM entries WHERE sequence > ? OR sequence < 1 ORDER BY sequence",
                (sequence,),
            ).fetchall()
            head = self._database.execute("SELECT count, hash FROM head").fetchall()
        entries: list[Entry] = []
        for row in rows:
            sequence += 1
            try:
                entries.append(Entry.from_row(row, sequence, previous_hash))
            except ValueError as error:
                raise self._altered(f"entry {sequence}: {error}") from None
            previous_hash = entries[-1].hash
        if head != [(sequence, previous_hash)]:
            recorded = head[0][0] if len(head) == 1 else "no"
            raise self._altered(
                f"entry {sequence + 1}: {recorded} entries were recorded, {sequence} are there"
            )
        return entries

    def append(self, entry: Entry) -> None:
        """Write an entry and the new head; only inside `writing`."""
        with self._errors():
            self._database.execute("INSERT INTO entries VALUES (?,?,?,?,?,?,?,?)", entry.row)
            self._database.execute(
                "UPDATE head SET count = ?, hash = ?", (entry.sequence, entry.hash)
            )

    def check_pages(self) -> None:
        """Have SQLite look for damage in the whole file.

        Raises:
            LedgerError: it found damage.
        """
        with self._errors():
            found = self._database.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise self._altered(" ".join(str(found).split()))

    def _prepare(self, writable: bool) -> None:
        # Before anything of it is used: a view or trigger in a table's place could run for ever.
        self._database.execute("PRAGMA trusted_schema = OFF")
        if not writable:
            self._database.execute("PRAGMA query_only = ON")
        self._database.execute("PRAGMA synchronous = EXTRA")
        self._database.execute("PRAGMA fullfsync = ON")  # macOS: flush the drive's cache as well
        application = self._database.execute("PRAGMA application_id").fetchone()[0]
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID:
            raise LedgerError(
                f"{self.path} is a database but not a privacy ledger",
                hint="check the path",
            )
        if version != SCHEMA_VERSION:
            raise LedgerError(
                f"ledger {self.path} has schema version {version}; this program reads "
                f"{SCHEMA_VERSION}",
                hint="use the program version that wrote it",
            )
        if not schema_of(self._database) <= expected_schema():
            raise self._altered("its tables: they are not those of a ledger")

    def _read_identity(self) -> Identity:
        rows = self._database.execute(
            "SELECT ledger_id, data_fingerprint, created_at FROM identity"
        ).fetchall()
        if len(rows) != 1 or not all(isinstance(value, str) for value in rows[0]):
            raise self._altered("its identity is missing or damaged")
        return Identity(*rows[0])

    def _altered(self, what: str) -> LedgerError:
        return LedgerError(
            f"ledger {self.path} was altered or damaged at {what}",
            hint="restore it from a backup; nothing may train on its account until then",
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        # Damaged text shows as a UnicodeError, where it is part of SQLite's own message too.
        except (sqlite3.Error, UnicodeError) as error:
            raise self._explained(error) from None

    def _explained(self, error: sqlite3.Error | UnicodeError) -> LedgerError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code, see sqlite.org
        if code in _IN_USE:
            return LedgerError(
                f"ledger {self.path} is in use by another process and stayed so for "
                f"{self._busy_timeout_s:g} s",
                hint="end that process or try again",
            )
        reason = " ".join(str(error).split())
        if code in _NO_SPACE:
            return LedgerError(
                f"ledger {self.path} could not be read or written ({reason}); nothing was recorded",
                hint="free space on the disk and check it",
            )
        if code in _READ_ONLY:
            return LedgerError(
                f"ledger {self.path} cannot be written ({reason})", hint="check its permissions"
            )
        return LedgerError(
            f"ledger {self.path} cannot be read ({reason})",
            hint="check the path or restore it from a backup",
        )


def read_foreign(path: Path, below: Path) -> bytes:
    """The content of a ledger file in a folder that may be someone else's.

    Raises:
        LedgerError: it cannot be read, or is not whole without the journal beside it.
    """
    for suffix in ("-journal", "-wal"):
        if os.path.lexists(f"{path}{suffix}"):
            raise LedgerError(
                f"ledger {path} was left half written (there is {path.name}{suffix})",
                hint="finish its run with calyx simulate --resume, or ask its owner to",
            )
    try:
        content = read_regular(path, below)
    except OSError as error:
        raise LedgerError(f"ledger {path} cannot be read: {error}", hint="check the path") from None
    if not content:
        raise LedgerError(
            f"ledger {path} is empty, which a ledger never is",
            hint="restore it from a backup",
        )
    return content


def _check_file(path: Path) -> None:
    try:
        is_file, size = path.is_file(), path.stat().st_size
    except FileNotFoundError:
        raise LedgerError(f"there is no ledger at {path}", hint="check the path") from None
    except OSError as error:
        raise LedgerError(
            f"ledger {path} cannot be read ({error})",
            hint="check the path",
        ) from None
    if not is_file:
        raise LedgerError(f"{path} is not a file, so it is not a ledger", hint="check the path")
    if not size:
        raise LedgerError(
            f"ledger {path} is empty, which a ledger never is",
            hint="restore it from a backup",
        )
