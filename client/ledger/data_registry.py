"""Which ledger each of this user's records is charged to: one set of records has one budget.

A ledger records what is spent on its own records. Two devices with the same records on one machine
would have two ledgers, two budgets, and records that lose twice what each ledger says; in one run
they would be two contributors, and the records count twice in a sum with noise for one. So each
device claims its records here when it is enrolled, when it joins and when its ledger is opened, and
a device is refused if any of its records are on another ledger (docs/adr/0022).

``$XDG_STATE_HOME/calyx/data-registry.sqlite``, by default under ``~/.local/state``; folder 0700,
file 0600. It holds no records but a hash of each, and of each file that they are from, 8 bytes,
under a key of this file's own: without the file no one can tell whether a record is in it; with it,
anyone who guesses a record can. Two different records look the same with a chance of 2^-64 a pair,
5e-8 for two sets of a million.

It guards against accidents, and against a server's operator who asks for one more enrolment. It
does not keep owners from cheating themselves: they can delete it, or work as another user.
Simulations claim nothing: each run folder has ledgers of its own.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calyx.client.ledger.ledger import Ledger
from calyx.shared.data import Dataset
from calyx.shared.errors import EncryptionError, LedgerError, full_text
from calyx.shared.host.private_files import private_directory

FILE_NAME = "data-registry.sqlite"
_APPLICATION_ID, _VERSION = 0x63616C72, 1  # "calr"
_BUSY_S = 30.0
_AT_ONCE = 1 << 14
_SCHEMA = """
CREATE TABLE secret (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), key BLOB NOT NULL);
CREATE TABLE holdings (
    ledger TEXT PRIMARY KEY,
    ledger_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    hashes BLOB NOT NULL,
    accepted INTEGER NOT NULL
);
"""
_ACCEPT = "if epsilons may add up, give calyx client enroll or join the option --accept-overlap"


@dataclass(frozen=True)
class _Holding:
    """Records on one ledger.

    Attributes:
        ledger: its path.
        ledger_id: the ledger's own number; empty as long as nothing has been charged to it.
        fingerprint: keyed hash of the whole data set, hex.
        accepted: whether the owner said that they may be on other ledgers too.
    """

    ledger: Path
    ledger_id: str
    fingerprint: str
    accepted: bool

    @property
    def is_void(self) -> bool:
        """Enrolled, never charged, and gone with its folder: nothing was spent."""
        return not self.ledger_id and not self.ledger.parent.exists()


class DataRegistry:
    """The registry in a folder; made when it is first needed.

    Args:
        directory: where the file lies.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE_NAME

    @classmethod
    def of_user(cls) -> DataRegistry:
        """The registry of the user who runs this process.

        Raises:
            LedgerError: there is no place for it.
        """
        stated = os.environ.get("XDG_STATE_HOME", "")
        try:
            home = Path(stated) if stated else Path.home() / ".local" / "state"
        except RuntimeError:
            home = Path()
        if not home.is_absolute():
            raise LedgerError(
                "there is no place for the registry of this user's records",
                hint="set XDG_STATE_HOME to a folder that stays, with its whole path",
            )
        return cls(home / "calyx")

    def claim(
        self,
        records: Dataset,
        ledger: Path,
        *,
        files: Callable[[], Iterable[bytes]] = tuple,
        accept_overlap: bool = False,
    ) -> None:
        """Claim records for a ledger, or check that they are claimed.

        Args:
            records: as they are stored, however a run reads them.
            ledger: path of the ledger, which need not exist yet.
            files: gives hashes of the files that they are from. Read by another label or in other
                windows, the same file gives other records of the same people.
            accept_overlap: the owner knows that some are on other ledgers too, and from now on
                this ledger may have them.

        Raises:
            LedgerError: some are on another ledger, or this ledger was replaced or copied, or the
                registry cannot be used; nothing was changed.
        """
        ledger = ledger.resolve()
        ledger_id = _ledger_id(ledger)
        with self._opened() as database:
            key = bytes(database.execute("SELECT key FROM secret").fetchone()[0])
            tag = hashlib.blake2b(records.fingerprint.encode(), key=key, digest_size=32).hexdigest()
            known = _holding(database, "ledger", str(ledger))
            if known and (known.fingerprint, known.ledger_id) == (tag, ledger_id):
                if accept_overlap and not known.accepted:
                    database.execute(
                        "UPDATE holdings SET accepted = 1 WHERE ledger = ?", (str(ledger),)
                    )
                return
            hashes, of_files = record_hashes(records, key), _file_hashes(files(), key)
            database.execute("BEGIN IMMEDIATE")
            known = _follow_move(database, ledger, ledger_id, accept=accept_overlap)
            accepted = accept_overlap or (
                known is not None and known.accepted and known.fingerprint == tag
            )
            if known is not None and known.ledger_id and not accept_overlap:
                _check_same(known, ledger_id, tag)
            if not accepted:
                _check_overlap(database, ledger, hashes, of_files)
            database.execute(
                "INSERT OR REPLACE INTO holdings VALUES (?, ?, ?, ?, ?)",
                (str(ledger), ledger_id, tag, np.union1d(hashes, of_files).tobytes(), accepted),
            )
            database.execute("COMMIT")

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            private_directory(self.path.parent)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(self.path, flags, 0o600))
            if self.path.stat().st_mode & 0o077:
                raise LedgerError(
                    f"{self.path} can be read by other users",
                    hint=f"run: chmod 600 {self.path}",
                )
            with closing(
                sqlite3.connect(self.path, isolation_level=None, timeout=_BUSY_S)
            ) as database:
                _prepare(database, self.path)
                yield database  # what is not committed is rolled back
        except (OSError, sqlite3.Error, EncryptionError) as error:
            raise LedgerError(
                f"{self.path}, the registry of this user's records, cannot be used "
                f"({full_text(error)})",
                hint="repair it, or set XDG_STATE_HOME to another folder",
            ) from None


def record_hashes(records: Dataset, key: bytes) -> NDArray[np.uint64]:
    """Keyed hashes of all records with their labels: sorted, each once, uint64.

    Equal values give equal hashes regardless of the file, order or shape they were stored in.
    """
    found = []
    for first in range(0, len(records), _AT_ONCE):
        for row in records.record_bytes(first, first + _AT_ONCE):
            found.append(hashlib.blake2b(row.data, key=key, digest_size=8).digest())
    return np.unique(np.frombuffer(b"".join(found), dtype="<u8")).astype(np.uint64)


def _file_hashes(files: Iterable[bytes], key: bytes) -> NDArray[np.uint64]:
    """As `record_hashes`; under another name, so that no record has the hash of a file."""
    found = [
        hashlib.blake2b(file, key=key, digest_size=8, person=b"file").digest() for file in files
    ]
    return np.unique(np.frombuffer(b"".join(found), dtype="<u8")).astype(np.uint64)


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    database.execute("PRAGMA synchronous = EXTRA")
    database.execute("BEGIN IMMEDIATE")
    if not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        for statement in _SCHEMA.split(";"):
            database.execute(statement)
        database.execute("INSERT INTO secret VALUES (1, ?)", (secrets.token_bytes(32),))
        database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {_VERSION}")
    database.execute("COMMIT")
    application = database.execute("PRAGMA application_id").fetchone()[0]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if (application, version) != (_APPLICATION_ID, _VERSION):
        raise LedgerError(
            f"{path} is not a registry of records that this version can read",
            hint="use the version that wrote it",
        )


def _holding(database: sqlite3.Connection, column: str, value: str) -> _Holding | None:
    rows = database.execute(
        f"SELECT ledger, ledger_id, fingerprint, accepted FROM holdings WHERE {column} = ?",  # noqa: S608
        (value,),
    ).fetchall()
    return _Holding(Path(rows[0][0]), rows[0][1], rows[0][2], bool(rows[0][3])) if rows else None


def _follow_move(
    database: sqlite3.Connection, ledger: Path, ledger_id: str, *, accept: bool
) -> _Holding | None:
    """What is known of a ledger, also under its old path if its folder was moved."""
    known = _holding(database, "ledger", str(ledger))
    elsewhere = _holding(database, "ledger_id", ledger_id) if ledger_id else None
    if elsewhere is None or elsewhere.ledger == ledger:
        return known
    if elsewhere.ledger.exists():
        if accept:
            return known
        raise LedgerError(
            f"the ledger {ledger} is a copy of {elsewhere.ledger}, which still exists: what is "
            "spent on one would be missing on the other",
            hint=f"use {elsewhere.ledger.parent}, or delete it if this folder is to take its place",
        )
    database.execute(
        "DELETE FROM holdings WHERE ledger IN (?, ?)", (str(ledger), str(elsewhere.ledger))
    )
    return elsewhere


def _check_same(known: _Holding, ledger_id: str, tag: str) -> None:
    if known.ledger_id != ledger_id:
        raise LedgerError(
            f"the ledger {known.ledger} is not the one that was charged for these records; that "
            "one is gone or was replaced",
            hint=f"restore it from a copy, or {_ACCEPT}",
        )
    if known.fingerprint != tag:
        raise LedgerError(
            f"the ledger {known.ledger} belongs to other records than this device now holds",
            hint="put those records back, or enrol a new device for the new ones",
        )


def _check_overlap(
    database: sqlite3.Connection,
    ledger: Path,
    hashes: NDArray[np.uint64],
    of_files: NDArray[np.uint64],
) -> None:
    rows = database.execute(
        "SELECT ledger, ledger_id, fingerprint, accepted, hashes FROM holdings WHERE ledger != ?",
        (str(ledger),),
    )
    for path, ledger_id, fingerprint, accepted, stored in rows.fetchall():
        other = _Holding(Path(path), ledger_id, fingerprint, bool(accepted))
        theirs = np.frombuffer(stored, dtype="<u8")
        common = len(np.intersect1d(hashes, theirs, assume_unique=True))
        common_files = len(np.intersect1d(of_files, theirs, assume_unique=True))
        if not common and not common_files:
            continue
        if other.is_void:
            database.execute("DELETE FROM holdings WHERE ledger = ?", (path,))
            continue
        is_gone = other.ledger_id and not other.ledger.exists()
        way_out = "restore it" if is_gone else f"use the device in {other.ledger.parent}"
        what = f"{common:,} of these {len(hashes):,} records are"
        if not common:
            what = (
                f"records of {common_files:,} of these {len(of_files):,} files, read otherwise, are"
            )
        raise LedgerError(
            f"{what} already charged to another ledger, "
            f"{other.ledger}{', which is gone' if is_gone else ''}; records have one budget",
            hint=f"{way_out}, or {_ACCEPT}",
        )


def _ledger_id(ledger: Path) -> str:
    """The number of a ledger, empty if there is none yet."""
    if not ledger.exists():
        return ""
    with Ledger.read_only(ledger) as opened:
        return opened.ledger_id
