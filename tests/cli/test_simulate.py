from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CalyxProcess = Callable[..., Any]

SHORT = ("--set", "training.rounds=2", "--set", "federation.clients=3", "--set", "model.name=lstm")
SHORT += ("--set", "data.view=sequence", "--set", "model.hidden=8", "--workers", "1")
JSON_KEYS = ["accuracy", "loss", "epsilon_max", "delta", "noise_multiplier", "rounds", "clients"]
JSON_KEYS += ["rejected", "seconds", "seconds_per_round", "run_dir"]


def test_a_run_from_start_to_end(calyx_process: CalyxProcess, tmp_path: Path) -> None:
    outcome = calyx_process("simulate", *SHORT, "--json", "--out", "first")
    assert outcome.code == 0, outcome.err
    (line,) = outcome.out.splitlines()
    result = json.loads(line)
    assert list(result) == JSON_KEYS
    assert 0 < result["epsilon_max"] <= 8.0
    assert result["run_dir"] == str(tmp_path / "first")
    lines = outcome.err.splitlines()
    assert lines[0] == "digits-cnn"
    assert lines[2].startswith("ε ≤ 8 at δ = 0.0001 for each record, local noise")
    assert [line.split()[1] for line in lines if line.startswith("round ")] == ["1/2", "2/2"]
    assert lines[-1] == "run folder: first"
    assert all(character.isprintable() or character == "\n" for character in outcome.err)

    ledger = tmp_path / "first" / "ledgers" / "client-0000.sqlite"
    budget = calyx_process("client", "budget", str(ledger), "--json", "--verify")
    assert json.loads(budget.out)["epsilon"] <= result["epsilon_max"]

    again = calyx_process("simulate", *SHORT, "--out", "first")
    assert (again.code, again.out) == (2, "")
    assert "go on with --resume" in again.error_line
    other = calyx_process("simulate", "--set", "seed=1", "--resume", "--out", "first")
    assert other.code == 2
    assert "seed = 1: the run was started with 0" in other.error_line


def test_a_run_without_noise_says_so_and_no_library_is_heard(calyx_process: CalyxProcess) -> None:
    outcome = calyx_process("simulate", *SHORT, "--set", "privacy.noise=none", "--out", "first")
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out.count("no differential privacy") == 2
    assert all(character.isprintable() or character == "\n" for character in outcome.out)


def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "cli.main", "simulate", *SHORT, "--out", "first"]
        + ["--set", "training.rounds=500"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("round"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out.splitlines()[-1] == "stopped; go on with: calyx simulate --resume --out first"
    assert err == ""


@pytest.mark.parametrize("arguments", [["--out", "/dev/null/x"]], ids=str)
def test_a_folder_that_cannot_be_made_fails_the_run_in_one_line(
    calyx_process: CalyxProcess, arguments: list[str]
) -> None:
    outcome = calyx_process("simulate", *SHORT, *arguments)
    assert outcome.code in (1, 2)
    assert outcome.out == ""
    assert "/dev/null/x" in outcome.error_line
