"""A ledger that was damaged or tampered with answers nothing but an error, and says where."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calyx.client.ledger.ledger import Budget, Entry, Ledger
from calyx.shared.errors import LedgerError
from calyx.shared.privacy.event import PrivacyEvent

FINGERPRINT = hashlib.sha256(b"these records").hexdigest()
EVENT = PrivacyEvent("gaussian", "record", 2.0, "full", 1.0, 1)
ENTRIES = 5


def charge(ledger: Ledger, round: int) -> Entry:
    return ledger.charge(
        run="run",
        round=round,
        instruction=hashlib.sha256(str(round).encode()).hexdigest(),
        event=EVENT,
        budget=Budget(1000.0, 1e-5, "record"),
        repeatable=False,
    )


def tamper(path: Path, *statements: str) -> None:
    """Change the file as anyone with SQLite and write access could."""
    database = sqlite3.connect(path, isolation_level=None)
    triggers = database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for (name,) in triggers:
        database.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        database.execute(statement)
    database.close()


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("intact") / "ledger.sqlite"
    with Ledger.open(path, data_fingerprint=FINGERPRINT) as ledger:
        for number in range(1, ENTRIES + 1):
            charge(ledger, number)
    return path


@pytest.fixture
def path(intact: Path, tmp_path: Path) -> Iterator[Path]:
    yield Path(shutil.copy(intact, tmp_path / "ledger.sqlite"))


TAMPERING = {
    "an event made cheaper": (
        "UPDATE entries SET event = json_set(event, '$.noise_multiplier', 200.0)"
        " WHERE sequence = 3",
        "entry 3: its content does not match its hash",
    ),
    "another round": (
        "UPDATE entries SET round = 9 WHERE sequence = 2",
        "entry 2: its content does not match its hash",
    ),
    "another run": (
        "UPDATE entries SET run = 'x' WHERE sequence = 1",
        "entry 1: its content does not match its hash",
    ),
    "another instruction": (
        "UPDATE entries SET instruction = '00' WHERE sequence = 1",
        "entry 1: its content does not match its hash",
    ),
    "another time": (
        "UPDATE entries SET recorded_at = '2020-01-01' WHERE sequence = 5",
        "entry 5: its content does not match its hash",
    ),
    "another hash": (
        "UPDATE entries SET hash = 'ab' WHERE sequence = 4",
        "entry 4: its content does not match its hash",
    ),
    "an entry taken out": (
        "DELETE FROM entries WHERE sequence = 3",
        "entry 3: number 4 is in its place",
    ),
    "an entry taken out and the rest renumbered": (
        "DELETE FROM entries WHERE sequence = 3;"
        "UPDATE entries SET sequence = sequence - 1 WHERE sequence > 3",
        "entry 3: its content does not match its hash",
    ),
    "two entries swapped": (
        "UPDATE entries SET sequence = 99 WHERE sequence = 2;"
        "UPDATE entries SET sequence = 2 WHERE sequence = 3;"
        "UPDATE entries SET sequence = 3 WHERE sequence = 99",
        "entry 2: its content does not match its hash",
    ),
    "the last entries cut off": (
        "DELETE FROM entries WHERE sequence > 3",
        "entry 4: 5 entries were recorded, 3 are there",
    ),
    "all entries cut off": (
        "DELETE FROM entries",
        "entry 1: 5 entries were recorded, 0 are there",
    ),
    "the last entries cut off and the count adjusted": (
        "DELETE FROM entries WHERE sequence > 3; UPDATE head SET count = 3",
        "entry 4: 3 entries were recorded, 3 are there",
    ),
    "the head removed": (
        "DELETE FROM head",
        "entry 6: no entries were recorded, 5 are there",
    ),
    "an entry put in front": (
        "INSERT INTO entries SELECT 0, run, round, instruction, event, recorded_at,"
        " previous_hash, hash FROM entries WHERE sequence = 1",
        "entry 1: number 0 is in its place",
    ),
    "an entry added at the end": (
        "INSERT INTO entries SELECT 6, run, round, instruction, event, recorded_at,"
        " previous_hash, hash FROM entries WHERE sequence = 5",
        "entry 6: its content does not match its hash",
    ),
    "no event": (
        "UPDATE entries SET event = '[]' WHERE sequence = 2",
        "entry 2: its content cannot be read",
    ),
    "no JSON": (
        "UPDATE entries SET event = '{' WHERE sequence = 2",
        "entry 2: its content cannot be read",
    ),
    "a nested bomb": (
        "UPDATE entries SET event = printf('%.*c', 200000, '[') WHERE sequence = 2",
        "entry 2: its content cannot be read",
    ),
    "bytes where text belongs": (
        "UPDATE entries SET run = x'00ff' WHERE sequence = 2",
        "entry 2: its content cannot be read",
    ),
    "other data": (
        "UPDATE identity SET data_fingerprint = 'other'",
        "entry 1: it does not follow the entry before it",
    ),
    "another identity": (
        "UPDATE identity SET ledger_id = 'other'",
        "entry 1: it does not follow the entry before it",
    ),
}


@pytest.mark.parametrize("case", TAMPERING)
def test_tampering_is_found_and_its_first_place_named(path: Path, case: str) -> None:
    statements, place = TAMPERING[case]
    tamper(path, *statements.split(";"))
    with Ledger.read_only(path) as ledger:
        questions: list[Callable[[], object]] = [
            ledger.verify,
            ledger.entries,
            lambda: ledger.spent(1e-5, "record"),
            lambda: ledger.spent_by_run(1e-5, "record"),
            lambda: ledger.head_hash,
        ]
        for ask in questions:
            with pytest.raises(LedgerError) as caught:
                ask()
            assert place in str(caught.value)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", [case for case in TAMPERING if case != "other data"])
def test_nothing_trains_on_a_tampered_ledger(path: Path, case: str) -> None:
    tamper(path, *TAMPERING[case][0].split(";"))
    with pytest.raises(LedgerError, match="altered or damaged"):
        Ledger.open(path, data_fingerprint=FINGERPRINT)


def test_a_ledger_made_to_fit_other_data_is_refused_by_those_data(path: Path) -> None:
    tamper(path, "UPDATE identity SET data_fingerprint = 'other'")
    with pytest.raises(LedgerError, match="entry 1"):
        Ledger.open(path, data_fingerprint="other")
    with pytest.raises(LedgerError, match="belongs to the data other"):
        Ledger.open(path, data_fingerprint=FINGERPRINT)


def test_cutting_an_open_ledger_short_stops_the_next_charge(path: Path) -> None:
    with Ledger.open(path, data_fingerprint=FINGERPRINT) as ledger:
        before = ledger.entries()[3]
        tamper(
            path,
            "DELETE FROM entries WHERE sequence = 5",
            f"UPDATE head SET count = 4, hash = '{before.hash}'",
        )
        with pytest.raises(LedgerError, match="altered or damaged"):
            charge(ledger, 6)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET round = 9",
        "DELETE FROM entries",
        "INSERT INTO entries SELECT sequence + 2, run, round, instruction, event, recorded_at,"
        " previous_hash, hash FROM entries WHERE sequence = 5",
        "UPDATE head SET count = 0",
        "DELETE FROM head",
        "UPDATE identity SET data_fingerprint = 'other'",
        "DELETE FROM identity",
    ],
)
def test_the_file_itself_refuses_to_be_changed_by_accident(path: Path, statement: str) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        database.execute(statement)
    database.close()
    with Ledger.read_only(path) as ledger:
        assert ledger.verify() == ENTRIES


def test_a_full_rewrite_fits_together_and_only_a_noted_head_tells(path: Path) -> None:
    """The limit stated in the ledger's documentation, so that no one expects more."""
    with Ledger.open(path, data_fingerprint=FINGERPRINT) as ledger:
        noted, first = ledger.head_hash, ledger.entries()[0]
    forged = replace(first, event=replace(EVENT, noise_multiplier=200.0)).sealed
    columns = "sequence, run, round, instruction, event, recorded_at, previous_hash, hash"
    values = ", ".join(repr(value) for value in forged.row)
    tamper(
        path,
        "DELETE FROM entries",
        f"INSERT INTO entries ({columns}) VALUES ({values})",
        f"UPDATE head SET count = 1, hash = '{forged.hash}'",
    )
    with Ledger.open(path, data_fingerprint=FINGERPRINT) as ledger:
        assert ledger.verify() == 1
        assert noted not in [entry.hash for entry in ledger.entries()]


class TestFilesThatAreNoLedger:
    def refused(self, path: Path, match: str) -> None:
        content = path.read_bytes() if path.is_file() else None
        for opening in (
            lambda: Ledger.open(path, data_fingerprint=FINGERPRINT),
            lambda: Ledger.read_only(path),
        ):
            with pytest.raises(LedgerError, match=match) as caught:
                opening()
            assert "\n" not in str(caught.value)
            assert str(path) in str(caught.value)
        assert content is None or path.read_bytes() == content

    def test_an_empty_file(self, path: Path) -> None:
        path.write_bytes(b"")
        self.refused(path, "is empty")

    def test_a_text(self, path: Path) -> None:
        path.write_text("epsilon = 0\n" * 200)
        self.refused(path, "cannot be read")

    def test_a_folder(self, tmp_path: Path) -> None:
        self.refused(tmp_path, "is not a file")

    def test_a_dangling_link(self, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "nowhere")
        self.refused(link, "there is no ledger")

    def test_another_programs_database(self, tmp_path: Path) -> None:
        path = tmp_path / "bookmarks.sqlite"
        database = sqlite3.connect(path, isolation_level=None)
        database.execute("CREATE TABLE entries (sequence INTEGER)")
        database.close()
        self.refused(path, "not a privacy ledger")

    def test_a_schema_of_the_future(self, path: Path) -> None:
        tamper(path, "PRAGMA user_version = 2")
        self.refused(path, "schema version 2; this program reads 1")

    def test_a_ledger_without_identity(self, path: Path) -> None:
        tamper(path, "DELETE FROM identity")
        self.refused(path, "identity")

    def test_a_ledger_without_tables(self, path: Path) -> None:
        tamper(path, "DROP TABLE identity", "DROP TABLE entries", "DROP TABLE head")
        self.refused(path, "cannot be read")

    @pytest.mark.parametrize("replacement", [b"`", b"\xff"], ids=["torn", "no text"])
    def test_a_damaged_table_definition(self, path: Path, replacement: bytes) -> None:
        content = path.read_bytes()
        assert content.count(b"ledger_id TEXT NOT NULL") == 1
        path.write_bytes(content.replace(b"ledger_id TEXT", replacement + b"edger_id TEXT"))
        self.refused(path, "cannot be read")

    def test_a_file_cut_in_half(self, path: Path) -> None:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(LedgerError) as caught:
            Ledger.open(path, data_fingerprint=FINGERPRINT)
        assert "\n" not in str(caught.value)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_flipped_bit_is_an_error_or_changes_nothing(intact: Path, data: st.DataObject) -> None:
    content = bytearray(intact.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    with Ledger.read_only(intact) as ledger:
        expected = ledger.entries()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        path.write_bytes(content)
        try:
            with Ledger.open(path, data_fingerprint=FINGERPRINT) as ledger:
                found = ledger.entries()
        except LedgerError as error:
            assert "\n" not in str(error)
        else:
            assert found == expected
