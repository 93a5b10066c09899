"""The tables of a ledger file, and how a new one comes into being.

The triggers abort every UPDATE and DELETE of what was written. They are a seat belt against our own
mistakes; the hash chain of `calyx.client.ledger.entry` finds changes by others.
"""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from calyx.client.ledger.entry import SCHEMA_VERSION, Identity
from calyx.shared.errors import LedgerError
from calyx.shared.host.atomic_write import draft_of, publish_new

APPLICATION_ID = 0x63616C79  # "caly", so that another program's database is not taken for ours

_SCHEMA = """
BEGIN;
CREATE TABLE identity (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    ledger_id TEXT NOT NULL,
    data_fingerprint TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE TABLE entries (
    sequence INTEGER PRIMARY KEY,
    run TEXT NOT NULL,
    round INTEGER NOT NULL,
    instruction TEXT NOT NULL,
    event TEXT NOT NULL,
    recorded_at TEXT NOT NULL,
    previous_hash TEXT NOT NULL,
    hash TEXT NOT NULL
);
CREATE TABLE head (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    count INTEGER NOT NULL,
    hash TEXT NOT NULL
);
CREATE TRIGGER identity_is_fixed BEFORE UPDATE ON identity
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER identity_stays BEFORE DELETE ON identity
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER entries_are_fixed BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER entries_stay BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER entries_follow BEFORE INSERT ON entries
    WHEN NEW.sequence IS NOT (SELECT count + 1 FROM head)
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER head_only_grows BEFORE UPDATE ON head WHEN NEW.count != OLD.count + 1
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER head_stays BEFORE DELETE ON head
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""


def schema_of(database: sqlite3.Connection) -> frozenset[tuple[str, str, str]]:
    """Kind, name and text of everything that a database defines."""
    return frozenset(database.execute("SELECT type, name, sql FROM sqlite_master").fetchall())


@cache
def expected_schema() -> frozenset[tuple[str, str, str]]:
    """`schema_of` a ledger."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    try:
        database.executescript(_SCHEMA + "COMMIT;")
        return schema_of(database)
    finally:
        database.close()


def create_if_missing(path: Path, data_fingerprint: str) -> None:
    """Create an empty ledger, readable by its owner alone, unless something is at `path`.

    It is made under another name and appears whole or not at all.

    Raises:
        LedgerError: the folder or file cannot be written.
    """
    try:
        if path.exists():
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with draft_of(path, 0o600) as draft:
            _write_empty(draft, data_fingerprint)
            with suppress(FileExistsError):  # another process was faster; its ledger counts
                publish_new(draft, path)
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(
            f"the ledger {path} cannot be created ({error})",
            hint="check that the folder exists and has free space",
        ) from None


def _write_empty(path: Path, data_fingerprint: str) -> None:
    created_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    identity = Identity(secrets.token_hex(16), data_fingerprint, created_at)
    database = sqlite3.connect(path, isolation_level=None)
    try:
        database.execute("PRAGMA synchronous = EXTRA")
        database.executescript(_SCHEMA)
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        database.execute(
            "INSERT INTO identity VALUES (1, ?, ?, ?)",
            (identity.ledger_id, identity.data_fingerprint, identity.created_at),
        )
        database.execute("INSERT INTO head VALUES (1, 0, ?)", (identity.genesis,))
        database.execute("COMMIT")
    finally:
        database.close()
