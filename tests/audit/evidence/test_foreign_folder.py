"""A run folder that someone else filled with traps: one line, at once, and nothing touched."""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calyx.audit.compare import compare
from calyx.audit.evidence.store import CHAIN, EvidenceStore
from calyx.audit.run import audit_run, report_run
from calyx.audit.verify import verify
from calyx.client.ledger.ledger import Ledger
from calyx.client.ledger.schema import APPLICATION_ID
from calyx.server.state.checkpoint import load_latest
from calyx.shared.data.sources.npz import arrays_of
from calyx.shared.errors import CalyxError, CheckpointError, DataError, EvidenceError, LedgerError
from calyx.shared.host.atomic_write import write_atomically


@pytest.fixture
def folder(reported_run: Path, tmp_path: Path) -> Path:
    """A copy of a run with its report, to set traps in."""
    return Path(shutil.copytree(reported_run, tmp_path / "run"))


def link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def hole(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


# Everything that an audit reads, and a name that no reader knows.
READ = [
    "config.toml",
    "environment.json",
    "partition.npz",
    "metrics.jsonl",
    "ledgers/client-0000.sqlite",
    "batches/client-0000.jsonl",
    "audit/report.json",
    "audit/evidence/chain.jsonl",
    "audit/evidence/evaluation.npz",
    "something-else",
]


def readers(folder: Path) -> list[Callable[[], object]]:
    return [
        lambda: verify(folder / "audit" / "report.json"),
        lambda: report_run(folder),
        lambda: compare([folder, folder]),
        lambda: audit_run(folder, skip=["unprotected"], only=["views"], progress=lambda *_: None),
    ]


@pytest.mark.parametrize("trap", [link, pipe, hole])
@pytest.mark.parametrize("name", READ)
def test_a_trap_is_one_line_for_every_reader(
    name: str, trap: Callable[[Path], None], folder: Path
) -> None:
    path = folder / name
    path.unlink(missing_ok=name == "something-else")
    trap(path)
    which = readers(folder)
    # A report and an audit do not read the report that was there; an audit puts evidence aside.
    if "audit/" in name:
        which = which[:1]
    for read in which:
        with pytest.raises(CalyxError) as caught:
            read()
        assert "\n" not in str(caught.value) and "root:" not in str(caught.value)


NESTED = "[" * 100_000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.toml", f"a = {NESTED}"),
        ("config.toml", f"[{'a.' * 50_000}a]"),
        ("environment.json", NESTED),
        ("metrics.jsonl", f"{NESTED}\n{{}}\n"),
        ("batches/client-0000.jsonl", NESTED),
        ("audit/report.json", NESTED),
    ],
)
def test_text_that_is_nested_without_end_is_one_line_too(
    name: str, text: str, folder: Path
) -> None:
    which = readers(folder)[:1]
    if not name.startswith("audit"):
        # Without evidence, which would tell that the file was altered before it is read.
        shutil.rmtree(folder / "audit" / "evidence")
        which = readers(folder)[3:] if name.startswith("batches") else readers(folder)[1:3]
    (folder / name).write_text(text)
    for read in which:
        with pytest.raises(CalyxError) as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["audit", "audit/evidence", "ledgers"])
def test_a_folder_that_is_a_link_is_neither_read_nor_written(name: str, folder: Path) -> None:
    outside = folder.parent / "outside"
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    for read in readers(folder):
        with pytest.raises(CalyxError):
            read()
    assert before == {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}


def test_evidence_named_outside_its_folder_is_not_read(folder: Path) -> None:
    chain = folder / "audit" / "evidence" / CHAIN
    store = EvidenceStore(folder)
    (folder.parent / "secret.json").write_text("{}")
    store._chain.add("escape", "../../../secret.json", "0" * 64)
    with pytest.raises(EvidenceError, match=r"chain\.jsonl was altered or damaged at line"):
        EvidenceStore(folder)
    assert chain.exists()


def test_what_is_written_goes_through_no_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "page.html").symlink_to(victim)
    write_atomically(tmp_path / "page.html", b"page")
    assert victim.read_text() == "mine"
    assert (tmp_path / "page.html").read_bytes() == b"page"
    assert not (tmp_path / "page.html").is_symlink()


def test_an_archive_is_not_unfolded_beyond_what_its_reader_allows() -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.zeros(100_000), b=np.arange(3))
    assert buffer.tell() < 5_000
    assert set(arrays_of(buffer.getvalue(), 900_000)) == {"a", "b"}
    with pytest.raises(DataError, match="unpacks to more than 700,000 bytes"):
        arrays_of(buffer.getvalue(), 700_000)


def test_an_array_that_promises_more_than_is_there_takes_no_memory() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("a.npy", "w") as file:
        header = {"descr": "<i8", "fortran_order": False, "shape": (1 << 50,)}
        np.lib.format.write_array_header_2_0(file, header)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="promises"):
        arrays_of(buffer.getvalue(), 1 << 30)
    with pytest.raises(DataError, match=r"damaged or not in \.npz format"):
        arrays_of(b"PK\x03\x04" + bytes(50), 1 << 30)


def test_a_batch_that_says_it_is_larger_than_it_is_is_refused(folder: Path) -> None:
    path = folder / "batches" / "client-0000.jsonl"
    line = json.loads(path.read_text().splitlines()[0])
    path.write_text(json.dumps({**line, "records": 10**12}) + "\n")
    shutil.rmtree(folder / "audit")
    with pytest.raises(EvidenceError, match="another size than it says"):
        report_run(folder)


class TestLedgers:
    @pytest.fixture
    def ledger(self, folder: Path) -> Path:
        return folder / "ledgers" / "client-0000.sqlite"

    def test_looking_at_one_touches_nothing_beside_it(self, ledger: Path, folder: Path) -> None:
        before = {path.name: path.stat().st_mtime_ns for path in ledger.parent.iterdir()}
        with Ledger.inspect(ledger, folder) as opened:
            assert opened.verify() == 2
        assert before == {path.name: path.stat().st_mtime_ns for path in ledger.parent.iterdir()}

    @pytest.mark.parametrize("suffix", ["-journal", "-wal"])
    def test_a_journal_beside_it_is_not_played_back(
        self, ledger: Path, folder: Path, suffix: str
    ) -> None:
        beside = ledger.with_name(ledger.name + suffix)
        beside.write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(600))
        with pytest.raises(LedgerError, match="half written"):
            Ledger.inspect(ledger, folder)
        assert beside.exists()

    @pytest.mark.parametrize("opening", ["inspect", "read_only"])
    @pytest.mark.parametrize("table", ["entries", "identity", "head"])
    def test_a_view_in_a_tables_place_is_never_asked(
        self, ledger: Path, folder: Path, table: str, opening: str
    ) -> None:
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
        database = sqlite3.connect(ledger)
        database.executescript(
            f"DROP TABLE {table}; CREATE VIEW {table} AS {endless} SELECT i AS sequence,"
            " i AS count, i AS hash, i AS ledger_id, i AS data_fingerprint, i AS created_at,"
            " i AS run, i AS round, i AS instruction, i AS event, i AS recorded_at,"
            " i AS previous_hash FROM n;"
        )
        assert database.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        database.close()
        with pytest.raises(LedgerError, match="not those of a ledger"):
            Ledger.inspect(ledger, folder) if opening == "inspect" else Ledger.read_only(ledger)

    def test_what_is_no_database_is_one_line(self, ledger: Path, folder: Path) -> None:
        for content in (b"", b"nothing", b"SQLite format 3\0" + bytes(100)):
            ledger.write_bytes(content)
            with pytest.raises(LedgerError) as caught:
                Ledger.inspect(ledger, folder)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("trap", [link, pipe, hole])
def test_a_checkpoint_is_a_file(trap: Callable[[Path], None], folder: Path) -> None:
    checkpoints = folder / "checkpoints"
    trap(checkpoints / "round-000009.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_latest(checkpoints, "0" * 64)
