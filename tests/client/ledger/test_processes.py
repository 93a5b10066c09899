"""Several processes, kill -9 and a full disk: no acknowledged charge is ever lost."""

from __future__ import annotations

import hashlib
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from calyx.client.ledger.ledger import Budget, Ledger
from calyx.shared.errors import LedgerError
from calyx.shared.privacy.accounting import spent
from calyx.shared.privacy.event import PrivacyEvent

FINGERPRINT = hashlib.sha256(b"these records").hexdigest()
EVENT = PrivacyEvent("gaussian", "record", 2.0, "full", 1.0, 1)
DELTA = 1e-5

# What each child process does: it charges round after round and says which are acknowledged.
CHILD = """
import hashlib, resource, sys
from pathlib import Path
from calyx.client.ledger.ledger import Budget, Ledger
from calyx.shared.errors import CalyxError
from calyx.shared.privacy.accounting import PrivacyEvent

path, first, count, epsilon, file_limit = sys.argv[1:]
if int(file_limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(file_limit), int(file_limit)))
fingerprint = hashlib.sha256(b"these records").hexdigest()
event = PrivacyEvent("gaussian", "record", 2.0, "full", 1.0, 1)
print("ready", flush=True)
sys.stdin.readline()
try:
    with Ledger.open(Path(path), data_fingerprint=fingerprint) as ledger:
        for number in range(int(first), int(first) + int(count)):
            entry = ledger.charge(
                run="run",
                round=number,
                instruction=hashlib.sha256(str(number).encode()).hexdigest(),
                event=event,
                budget=Budget(float(epsilon), 1e-5, "record"),
                repeatable=False,
            )
            print(number, entry.hash, flush=True)
except CalyxError as error:
    print(type(error).__name__, error.full_text, flush=True)
"""


def start(
    path: Path, first: int, count: int, *, epsilon: float = math.inf, file_limit: int = 0
) -> subprocess.Popen[str]:
    """A child that waits, ready, for its first line of input."""
    arguments = [str(path), str(first), str(count), str(epsilon), str(file_limit)]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def charge(ledger: Ledger, round: int) -> None:
    ledger.charge(
        run="run",
        round=round,
        instruction=hashlib.sha256(str(round).encode()).hexdigest(),
        event=EVENT,
        budget=Budget(1e6, DELTA, "record"),
        repeatable=False,
    )


def acknowledged(lines: list[str]) -> dict[int, str]:
    """Round and hash of each charge that a child reported as done."""
    pairs = (line.split() for line in lines if line[:1].isdigit() and line.endswith("\n"))
    return {int(number): digest for number, digest in pairs}


def test_a_locked_ledger_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with Ledger.open(path, data_fingerprint=FINGERPRINT) as ledger:
        child = start(path, 1, 1)
        with ledger._store.writing():
            go(child)
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(timeout=0.5)
        output, _ = child.communicate(timeout=60)
        assert acknowledged(output.splitlines(keepends=True)).keys() == {1}
        assert ledger.verify() == 1


def test_a_ledger_that_stays_locked_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    holder = (
        "import sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "database.execute('BEGIN IMMEDIATE')\n"
        "print('locked', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    with Ledger.open(path, data_fingerprint=FINGERPRINT, busy_timeout_s=0.2) as ledger:
        with subprocess.Popen(
            [sys.executable, "-c", holder, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "locked\n"
            with pytest.raises(LedgerError, match=r"in use by another process.* 0\.2 s") as caught:
                charge(ledger, 1)
            assert "\n" not in str(caught.value)
            child.communicate("\n", timeout=60)
        charge(ledger, 1)
        assert ledger.verify() == 1


def test_processes_that_share_a_new_ledger_lose_nothing_and_share_one_budget(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state" / "ledger"
    affordable = 20
    epsilon = spent([EVENT] * affordable, DELTA, "record").epsilon
    children = [start(path, 100 * i, 15, epsilon=epsilon) for i in range(2)]
    for child in children:
        go(child)
    outputs = [child.communicate(timeout=60)[0] for child in children]
    with Ledger.read_only(path) as ledger:
        assert ledger.verify() == affordable
        charged = {entry.round: entry.hash for entry in ledger.entries()}
        assert ledger.spent(DELTA, "record").epsilon <= epsilon
    told: dict[int, str] = {}
    for output in outputs:
        told |= acknowledged(output.splitlines(keepends=True))
    assert told == charged
    assert any("BudgetExceeded" in output for output in outputs)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_no_acknowledged_charge_is_lost_when_a_process_is_killed_in_the_middle(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state" / "ledger"
    told: dict[int, str] = {}
    for attempt, enough in enumerate((0, 1, 7, 20)):
        child = start(path, 10_000 * attempt, 10_000)
        assert child.stdout is not None
        go(child)
        lines = [child.stdout.readline() for _ in range(enough)]
        child.send_signal(signal.SIGKILL)
        rest, _ = child.communicate(timeout=60)
        assert child.returncode == -signal.SIGKILL
        told |= acknowledged(lines + rest.splitlines(keepends=True))
        with Ledger.open(path, data_fingerprint=FINGERPRINT) as ledger:
            charged = {entry.round: entry.hash for entry in ledger.entries()}
            assert ledger.verify() == len(charged)
            assert told.items() <= charged.items()
            # Each process may have been killed between commit and acknowledgement, once.
            assert len(charged) <= len(told) + attempt + 1
            charge(ledger, 10_000 * attempt + 9_999)
            told[10_000 * attempt + 9_999] = ledger.head_hash


def test_a_full_disk_is_one_clear_error_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with Ledger.open(path, data_fingerprint=FINGERPRINT) as ledger:
        charge(ledger, 1)
    child = start(path, 2, 10_000, file_limit=path.stat().st_size + 4096)
    output, _ = child.communicate("\n", timeout=60)
    *lines, last = output.splitlines(keepends=True)
    assert child.returncode == 0
    assert last.startswith("LedgerError")
    assert "nothing was recorded; free space" in last
    told = acknowledged(lines)
    assert len(told) > 3
    with Ledger.open(path, data_fingerprint=FINGERPRINT) as ledger:
        assert ledger.verify() == 1 + len(told)
        assert told.items() <= {entry.round: entry.hash for entry in ledger.entries()}.items()
        charge(ledger, 99_999)


def test_sqlites_own_limit_on_the_file_is_reported_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with Ledger.open(path, data_fingerprint=FINGERPRINT) as ledger:
        charge(ledger, 1)
        pages = ledger._store._database.execute("PRAGMA page_count").fetchone()[0]
        ledger._store._database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(LedgerError, match=r"is full.*nothing was recorded"):
            for number in range(2, 1000):
                charge(ledger, number)
        count = len(ledger.entries())
        assert ledger.verify() == count
        ledger._store._database.execute("PRAGMA max_page_count = 1000000")
        charge(ledger, 1000)
        assert ledger.verify() == count + 1


def test_a_disk_too_full_for_a_new_ledger_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "state" / "ledger"
    child = start(path, 1, 1, file_limit=4096)
    output, _ = child.communicate("\n", timeout=60)
    assert output.startswith("LedgerError")
    assert "cannot be created" in output
    assert list(path.parent.iterdir()) == []
