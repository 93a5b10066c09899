"""A journal is read while it is written, after a crash, and out of a folder from elsewhere."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from calyx.server.state.journal import FILE_NAME, Journal, JournalReader, RunEvents, append
from calyx.shared.errors import RunError


def round_of(number: int) -> dict[str, Any]:
    return {
        "event": "round",
        "round": number,
        "accuracy": 0.5,
        "loss": math.inf,
        "epsilon_max": None,
        "ok": 2,
        "rejected": [{"client": "ä", "reason": "late\u2028or not"}],
        "seconds": 0.1,
    }


def written(folder: Path) -> bytes:
    journal = Journal(folder, [round_of(1)])
    journal.write({"event": "start", "clients": 2})
    journal.write(round_of(2))
    journal.close()
    append(folder, {"event": "end", "loss": math.nan})
    return (folder / FILE_NAME).read_bytes()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written(tmp_path)
    told = RunEvents.read(tmp_path)
    assert [e["round"] for e in told.rounds] == [1, 2]
    assert told.rounds[0] == {**round_of(1), "loss": None}
    assert told.start == {"event": "start", "clients": 2}
    assert told.end == {"event": "end", "loss": None}
    assert [e["event"] for e in told.all] == ["round", "start", "round", "end"]


def test_a_last_line_that_is_not_whole_does_not_count_wherever_it_was_cut(tmp_path: Path) -> None:
    content = written(tmp_path)
    whole = RunEvents.read(tmp_path).all
    for size in range(len(content) + 1):
        (tmp_path / FILE_NAME).write_bytes(content[:size])
        assert RunEvents.read(tmp_path).all == whole[: content[:size].count(b"\n")]


def test_a_growing_journal_gives_each_event_once(tmp_path: Path) -> None:
    reader = JournalReader(tmp_path / "run" / FILE_NAME)
    assert reader.new_events() == []
    (tmp_path / "run").mkdir()
    content = written(tmp_path)
    seen: list[dict[str, Any]] = []
    for size in range(0, len(content) + 7, 7):
        with (tmp_path / "run" / FILE_NAME).open("ab") as file:
            file.write(content[max(size - 7, 0) : size])
        seen += reader.new_events()
    assert tuple(seen) == RunEvents.read(tmp_path).all


def test_a_journal_that_its_writer_began_again_is_read_from_its_start(tmp_path: Path) -> None:
    reader = JournalReader(tmp_path / FILE_NAME)
    written(tmp_path)
    assert len(reader.new_events()) == 4
    journal = Journal(tmp_path, [round_of(1), round_of(2)])
    journal.write(round_of(3))
    journal.close()
    assert [e["round"] for e in reader.new_events()] == [1, 2, 3]


def test_a_killed_writer_leaves_a_journal_that_can_be_read(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from calyx.server.state.journal import Journal
journal, number = Journal(Path({str(tmp_path)!r}), []), 0
while True:
    number += 1
    journal.write({{"event": "declined", "round": number, "clients": ["x" * 9000]}})
    print(number, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(50):
            done = int(writer.stdout.readline())
        writer.kill()
    numbers = [event["round"] for event in RunEvents.read(tmp_path).all]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= done


@pytest.mark.parametrize(
    "line", [b"{", b"", b"[]", b"{}", b'{"event": 1}', b"\xff", b"[" * 100_000, b"nonsense"]
)
def test_a_damaged_line_is_refused_by_its_number(tmp_path: Path, line: bytes) -> None:
    lines = written(tmp_path).splitlines(keepends=True)
    (tmp_path / FILE_NAME).write_bytes(lines[0] + line + b"\n" + lines[1])
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged at line 2"):
        RunEvents.read(tmp_path)
    with pytest.raises(RunError, match="damaged at line 2"):
        JournalReader(tmp_path / FILE_NAME).new_events()


def test_no_journal_is_no_event_and_a_link_is_refused(tmp_path: Path) -> None:
    assert RunEvents.read(tmp_path) == RunEvents(())
    assert RunEvents(()).start == RunEvents(()).end == {}
    (tmp_path / "elsewhere").write_text(json.dumps({"event": "start"}) + "\n")
    (tmp_path / FILE_NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="link"):
        RunEvents.read(tmp_path)
