"""TensorBoard reads what a run reported, and no thread of it outlives the call."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from calyx.server.state.board import Board, board_in
from calyx.server.state.journal import Journal

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read(directory: Path) -> dict[str, list[tuple[int, float]]]:
    events = accumulator.EventAccumulator(str(directory))
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


def test_tensorboard_reads_the_figures_of_each_round_at_once(tmp_path: Path) -> None:
    board = board_in(tmp_path / "board", 0)
    assert isinstance(board, Board)
    board.add({"model/accuracy": 0.5, "model/loss": 2.0}, 1)
    board.add({"model/accuracy": 0.75}, 2)
    assert read(tmp_path / "board") == {
        "model/accuracy": [(1, 0.5), (2, 0.75)],
        "model/loss": [(1, 2.0)],
    }
    board.close()


def test_rounds_that_are_repeated_after_a_restart_count_once(tmp_path: Path) -> None:
    for first, value in ((0, 0.25), (2, 0.5)):
        board = Board(tmp_path, first)
        for number in range(max(1, first), 4):
            board.add({"x": value}, number)
        board.close()
    assert read(tmp_path) == {"x": [(1, 0.25), (2, 0.5), (3, 0.5)]}


def test_a_folder_may_go_while_its_journal_is_open(tmp_path: Path) -> None:
    """With a writing thread that failed, long after and where no one could catch it."""
    event = {"event": "round", "round": 1, "accuracy": 0.5, "loss": 1.0, "epsilon_max": None}
    event |= {"ok": ["0"], "rejected": [], "seconds": 0.1}
    (tmp_path / "run").mkdir()
    before = threading.active_count()
    journal = Journal(tmp_path / "run", [])
    journal.write(event)
    assert threading.active_count() == before
    shutil.rmtree(tmp_path / "run")
    journal.write(event | {"round": 2})
    journal.close()


def test_tensorboard_shows_every_metric_of_the_task_and_of_the_clients(tmp_path: Path) -> None:
    event = {"event": "round", "round": 1, "accuracy": None, "loss": 0.5, "epsilon_max": 1.0}
    event |= {"ok": 2, "rejected": [], "seconds": 0.1}
    event["metrics"] = {"r2": 0.25, "mae": 40.0, "auc": None}
    event["clients"] = {"client-r2": 0.5, "client-r2-worst": 0.125, "client-loss": 2.0}
    journal = Journal(tmp_path, [])
    journal.write(event)
    journal.close()
    shown = {tag: value for tag, ((_, value),) in read(tmp_path / "tensorboard").items()}
    assert {k: v for k, v in shown.items() if k.startswith("model/")} == {
        "model/r2": 0.25,
        "model/mae": 40.0,
        "model/loss": 0.5,
    }
    assert {k: v for k, v in shown.items() if k.startswith("clients/")} == {
        "clients/r2": 0.5,
        "clients/r2-worst": 0.125,
        "clients/loss": 2.0,
        "clients/ok": 2.0,
        "clients/rejected": 0.0,
    }
