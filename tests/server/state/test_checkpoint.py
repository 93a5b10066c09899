"""A checkpoint is the old one or the new one, never a part, and only of its own run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from calyx.server.state.checkpoint import Checkpoint, load_latest, save_checkpoint
from calyx.shared.errors import CheckpointError


def checkpoint(number: int, digest: str = "d") -> Checkpoint:
    weights = {"z": np.full(4, number, np.float32), "a": np.array(number, np.int64)}
    state = {"m.z": np.full(4, 0.5, np.float64)}
    roster = [{"client": "0", "declared_records": 3, "standing": "active"}]
    history = [{"event": "round", "round": number}]
    average = {"z": np.full(4, 0.25, np.float32)}
    return Checkpoint(number, digest, weights, state, average, roster, history)


def test_round_trip_keeps_everything_and_the_order_of_the_arrays(tmp_path: Path) -> None:
    saved = checkpoint(3)
    save_checkpoint(tmp_path, saved)
    loaded = load_latest(tmp_path, "d")
    assert loaded is not None
    assert list(loaded.weights) == ["z", "a"]
    for name, value in saved.weights.items():
        assert loaded.weights[name].tobytes() == value.tobytes()
        assert loaded.weights[name].dtype == value.dtype
        assert loaded.weights[name].shape == value.shape
    assert loaded.strategy_state["m.z"].tolist() == [0.5] * 4
    assert loaded.average["z"].tolist() == [0.25] * 4
    assert (loaded.roster, loaded.history) == (saved.roster, saved.history)


def test_newest_wins_and_only_two_are_kept(tmp_path: Path) -> None:
    for number in (8, 9, 10, 11):
        save_checkpoint(tmp_path, checkpoint(number))
    loaded = load_latest(tmp_path, "d")
    assert loaded is not None and loaded.round == 11
    assert len(list(tmp_path.iterdir())) == 2


def test_nothing_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "none", "d") is None


def test_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1, digest="other"))
    with pytest.raises(CheckpointError, match="another configuration"):
        load_latest(tmp_path, "d")


def test_damaged_checkpoint_is_refused_with_advice(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, checkpoint(1))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError, match="delete it to use the one before"):
        load_latest(tmp_path, "d")


def test_full_disk_leaves_the_old_checkpoint_whole(tmp_path: Path) -> None:
    """A real file-size limit of the kernel simulates the full disk."""
    save_checkpoint(tmp_path, checkpoint(1))
    script = f"""
import resource, signal
from pathlib import Path
import numpy as np
from calyx.server.state.checkpoint import Checkpoint, save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    weights = {{"z": np.zeros(10**6, np.float32)}}
    save_checkpoint(Path({str(tmp_path)!r}), Checkpoint(2, "d", weights))
except OSError as error:
    print("refused", error.errno)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.startswith("refused")
    loaded = load_latest(tmp_path, "d")
    assert loaded is not None and loaded.round == 1
    assert [p.name for p in tmp_path.iterdir()] == ["round-000001.safetensors"]
