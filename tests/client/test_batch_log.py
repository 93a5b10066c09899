"""The batch log says which records were drawn, and repeated rounds count once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from client.batch_log import BatchLog, read_batches


def test_batches_are_read_as_they_were_drawn(tmp_path: Path) -> None:
    path = tmp_path / "client.jsonl"
    drawn = np.random.default_rng(0).random((6, 19)) < 0.3
    for number in (1, 2):
        log = BatchLog(path, round=number)
        for mask in drawn[3 * (number - 1) : 3 * number]:
            log.add(np.flatnonzero(mask), 19)
    assert (read_batches(path, path.parent) == drawn).all()


def test_a_round_that_was_repeated_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "client.jsonl"
    BatchLog(path, round=1).add(np.array([0, 1]), 4)
    BatchLog(path, round=1).add(np.array([2]), 4)
    assert read_batches(path, path.parent).tolist() == [[False, False, True, False]]


def test_batches_of_different_data_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "client.jsonl"
    BatchLog(path, round=1).add(np.array([0]), 4)
    BatchLog(path, round=2).add(np.array([0]), 40)
    with pytest.raises(ValueError, match="different data"):
        read_batches(path, path.parent)
