"""Code that a run folder names is imported only if its user names it too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

MODULE = """
from pathlib import Path
import numpy as np
from torch import nn
from calyx import Task

Path("imported").touch()


def records(place):
    table = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    return table, table.sum(axis=1)


def model(spec):
    return nn.Linear(*spec.float_shape, 1)


def losses(outputs, labels):
    return (outputs[:, 0] - labels).square()


def mae(outputs, labels):
    return (outputs[:, 0] - labels).abs().mean()


task = Task(losses, {"mae": mae}, records, model)
"""


def simulate(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "calyx", "simulate", "--no-report", *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_a_resumed_folder_does_not_bring_its_own_code(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(MODULE)
    small = ("federation.clients=3", "training.rounds=2", "secure_aggregation.min_contributors=3")
    settings = [word for setting in small for word in ("--set", setting)]
    first = simulate(tmp_path, "--task", "theirs:task", "--out", "run", *settings)
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "imported").exists()
    (tmp_path / "imported").unlink()

    alone = simulate(tmp_path, "--resume", "--out", "run")
    assert alone.returncode != 0
    assert "theirs:task" in alone.stderr
    assert not (tmp_path / "imported").exists()

    other = simulate(tmp_path, "--resume", "--out", "run", "--task", "mine:task")
    assert other.returncode != 0
    assert "theirs:task" in other.stderr
    assert not (tmp_path / "imported").exists()

    named = simulate(tmp_path, "--resume", "--out", "run", "--task", "theirs:task")
    assert named.returncode == 0, named.stderr
    assert (tmp_path / "imported").exists()
