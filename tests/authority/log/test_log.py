"""The authority's log: its chain, torn ends, cut ends and broken disks."""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calyx.authority.log.events import (
    Closed,
    Granted,
    Opened,
    Recovered,
    Refused,
    Revoked,
    names_hash,
)
from calyx.authority.log.log import GENESIS, AuthorityLog, verify
from calyx.shared.errors import LedgerError

EVENTS = (
    Revoked("device"),
    Granted("run", 1, 2, names_hash(["a", "b"]), "5" * 64, "6" * 64),
    Refused("run", 1, 1, names_hash(["a"]), "5" * 64, "too-few", "1 contributor, 2 are needed"),
    Closed("run"),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "releases.jsonl"


@pytest.fixture
def written(path: Path) -> Path:
    with AuthorityLog(path, clock=lambda: 1_700_000_000.0) as log:
        for event in EVENTS:
            log.append([event])
    return path


def test_what_was_written_is_read_back_in_order(written: Path) -> None:
    report = verify(written)
    assert tuple(entry.event for entry in report.entries) == EVENTS
    assert [entry.index for entry in report.entries] == [0, 1, 2, 3]
    assert report.entries[0].previous == GENESIS
    assert report.entries[0].time == "2023-11-14T22:13:20+00:00"
    assert report.torn == b""
    with AuthorityLog(written) as log:
        assert log.head == (3, report.head)
        assert tuple(log.take_past()) == EVENTS


def test_only_the_owner_can_read_it(written: Path) -> None:
    for path in (written, written.with_name(written.name + ".head")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_change_of_any_byte_is_found(written: Path, data: st.DataObject) -> None:
    whole = written.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda b: b != whole[at]))
    written.write_bytes(whole[:at] + bytes([other]) + whole[at + 1 :])
    try:
        with pytest.raises(LedgerError):
            verify(written)
    finally:
        written.write_bytes(whole)


@pytest.mark.parametrize(
    "order",
    [[0, 2, 3], [0, 2, 1, 3], [1, 2, 3], [0, 1, 1, 2, 3]],
    ids=["drop", "swap", "cut", "twice"],
)
def test_dropped_swapped_and_repeated_entries_are_found(written: Path, order: list[int]) -> None:
    lines = written.read_bytes().splitlines(keepends=True)
    written.write_bytes(b"".join(lines[i] for i in order))
    with pytest.raises(LedgerError, match=r"entry \d .*was altered"):
        verify(written)


def test_an_entry_rewritten_with_its_hash_breaks_the_chain_after_it(written: Path) -> None:
    from calyx.authority.log.log import CHAIN

    lines = written.read_bytes().splitlines()
    body = json.loads(lines[1])
    del body["hash"]
    body["round"] = 2
    lines[1] = json.dumps({**body, "hash": CHAIN.hash_of(body)}).encode()
    written.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(LedgerError, match="entry 2"):
        verify(written)


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_log_that_lost_its_end_is_refused(written: Path, kept: int) -> None:
    lines = written.read_bytes().splitlines(keepends=True)
    written.write_bytes(b"".join(lines[:kept]))
    with pytest.raises(LedgerError, match="its end was cut off"):
        verify(written)
    with pytest.raises(LedgerError, match="its end was cut off"):
        AuthorityLog(written)


def test_a_log_without_its_last_line_break_is_refused(written: Path) -> None:
    """A whole entry whose write had returned cannot be made into a torn one."""
    written.write_bytes(written.read_bytes()[:-1])
    with pytest.raises(LedgerError, match="its end was cut off"):
        AuthorityLog(written)


def test_a_log_exchanged_for_another_is_refused(written: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    with AuthorityLog(other) as log:
        log.append(EVENTS)
    written.write_bytes(other.read_bytes())
    with pytest.raises(LedgerError, match="not the one that its"):
        verify(written)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_line_cut_short_by_a_crash_is_reported_and_kept_aside(
    written: Path, share: float
) -> None:
    before = written.read_bytes()
    line = before.splitlines()[1]
    torn = line[: int(len(line) * share)]
    written.write_bytes(before + torn)
    report = verify(written)
    assert report.torn == torn and len(report.entries) == 4
    with AuthorityLog(written) as log:
        assert log.head[0] == 4
    after = verify(written)
    assert isinstance(after.entries[-1].event, Recovered)
    assert after.entries[-1].event.torn_bytes == len(torn)
    assert after.torn == b""
    assert written.with_name("releases.jsonl.torn-4").read_bytes() == torn


def test_a_crash_before_the_head_file_was_replaced_is_nothing(written: Path) -> None:
    head = written.with_name(written.name + ".head")
    old = head.read_bytes()
    with AuthorityLog(written) as log:
        log.append([Revoked("another")])
    head.write_bytes(old)
    assert len(verify(written).entries) == 5


def test_two_processes_do_not_write_one_log(written: Path) -> None:
    with AuthorityLog(written), pytest.raises(LedgerError, match="in use by another"):
        AuthorityLog(written)
    with AuthorityLog(written):
        pass


def test_a_full_disk_stops_the_log_until_it_is_opened_again(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.write

    def full(file: int, content: bytes) -> int:
        if len(content) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(file, content[:20])

    with AuthorityLog(written) as log:
        monkeypatch.setattr(os, "write", lambda file, content: full(file, content[:39]))
        with pytest.raises(LedgerError, match="No space left"):
            log.append([Revoked("another")])
        monkeypatch.undo()
        assert not log.is_usable
        with pytest.raises(LedgerError, match="failed before"):
            log.append([Revoked("another")])
    with AuthorityLog(written) as log:
        assert log.is_usable
    assert isinstance(verify(written).entries[-1].event, Recovered)


def test_a_log_with_names_in_its_decisions_is_read_as_counts_and_hashes(path: Path) -> None:
    """As they were written before; the run's terms have the names now as then."""
    from calyx.authority.log.log import CHAIN

    opened = asdict(Opened("run", "a" * 64, 2, 3, ("a", "b", "c"), True))
    granted = {"run": "run", "round": 1, "contributors": ["b", "a"], "sum_hash": "5" * 64}
    bodies = [
        {"event": "opened", **opened},
        {"event": "granted", **granted, "request": "6" * 64},
        {"event": "refused", **granted, "reason": "too-few", "detail": ""},
    ]
    lines, previous = [], GENESIS
    for index, fields in enumerate(bodies):
        body = {**fields, "index": index, "time": "then", "previous": previous}
        previous = CHAIN.hash_of(body)
        lines.append(json.dumps({**body, "hash": previous}) + "\n")
    path.write_text("".join(lines))
    names = names_hash(["a", "b"])
    assert [entry.event for entry in verify(path).entries] == [
        Opened(**opened),
        Granted("run", 1, 2, names, "5" * 64, "6" * 64),
        Refused("run", 1, 2, names, "5" * 64, "too-few", ""),
    ]


def test_a_missing_log_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be read"):
        verify(tmp_path / "none.jsonl")
