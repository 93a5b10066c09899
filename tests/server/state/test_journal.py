"""A journal is read while it is written, after a crash, and out of a folder from elsewhere."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from calyx.server.state.journal import (
    FILE_NAME,
    Journal,
    JournalReader,
    RunEvents,
    append,
    clients_metrics,
    judged_by,
    metrics_of,
)
from calyx.shared.errors import RunError
from calyx.shared.metric_facts import ACCURACY, MetricFacts


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


def test_a_journal_from_before_there_were_tasks_is_judged_by_accuracy() -> None:
    told = RunEvents(({"event": "start"}, round_of(1), round_of(2) | {"accuracy": None}))
    assert told.judged_by == (ACCURACY,)
    assert told.metrics(0) == {"accuracy": 0.5}
    assert told.headlines() == [0.5, None]


def test_a_journal_says_how_its_metrics_are_read_and_which_comes_first() -> None:
    mae, r2 = MetricFacts("mae", "MAE", higher_is_better=False), MetricFacts("r2", "R²")
    start = {"event": "start", "metrics": [mae.as_dict(), r2.as_dict()]}
    told = RunEvents(
        (start, round_of(1) | {"accuracy": None, "metrics": {"mae": 41, "r2": None}}),
    )
    assert told.judged_by == (mae, r2)
    assert told.headline == mae
    assert told.metrics(-1) == {"mae": 41.0, "r2": None}
    assert told.headlines() == [41.0]


def test_metrics_of_clients_are_told_apart_from_what_else_clients_told() -> None:
    told = {"train-loss": 1.0, "client-mae": 5.0, "client-mae-worst": 9.5, "client-r2": None}
    assert clients_metrics(round_of(1) | {"clients": told}) == {"mae": 5.0, "mae-worst": 9.5}
    assert clients_metrics(round_of(1)) == {}


@pytest.mark.parametrize("told", [[], {}, None, [{}], ["mae"], [{"name": "mae"}], 1])
def test_a_start_that_tells_of_metrics_wrongly_is_refused(told: object) -> None:
    with pytest.raises(RunError, match="start event tells of"):
        judged_by({"event": "start", "metrics": told})


@pytest.mark.parametrize("told", [None, [0.5], {"mae": "5"}, {"mae": [5]}, "mae"])
def test_a_round_that_tells_of_metrics_wrongly_is_refused(told: object) -> None:
    with pytest.raises(RunError, match="round event .* wrongly"):
        metrics_of(round_of(1) | {"metrics": told})
    with pytest.raises(RunError, match="round event .* wrongly"):
        clients_metrics(round_of(1) | {"clients": told})
