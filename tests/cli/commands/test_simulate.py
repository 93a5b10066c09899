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

Calyx = Callable[..., Any]

SHORT = tuple(
    word
    for setting in (
        "training.rounds=2",
        "federation.clients=3",
        "model.name=lstm",
        "privacy.noise=local",
        "privacy.sampling=poisson",
        "privacy.epsilon=8",
        "secure_aggregation.scheme=none",
    )
    for word in ("--set", setting)
)
SHORT += ("--set", "data.view=sequence", "--set", "model.hidden=8", "--workers", "1")
JSON_KEYS = ["accuracy", "metrics", "loss", "epsilon_max", "delta", "noise_multiplier"]
JSON_KEYS += ["rounds", "clients", "rejected", "rounds_with_effect", "seconds"]
JSON_KEYS += ["seconds_per_round", "run_dir", "report"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def interrupted_after_a_round(*arguments: str) -> tuple[int, list[str], str]:
    """Press Ctrl-C in a run when its first round is done."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "calyx.cli.main", "simulate", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # Where the tests run in the background of a script, they inherit that it is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("round"):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=60)
    return process.returncode, [*lines, *out.splitlines()], err


def test_a_run_that_is_interrupted_says_how_to_go_on_and_goes_on(calyx: Calyx) -> None:
    settings = (*SHORT, "--set", "training.rounds=60", "--set", "privacy.noise=none")
    code, lines, err = interrupted_after_a_round(*settings, "--out", "first")
    assert (code, err) == (130, "")
    assert lines[0] == "digits-cnn"
    assert lines[2] == "no differential privacy"
    assert lines[-1] == "stopped; continue with: calyx simulate --resume --out first"
    assert all(line.isprintable() for line in lines)

    outcome = calyx("simulate", "--resume", "--out", "first", "--workers", "1")
    assert (outcome.code, outcome.err) == (0, "")
    assert "going on at round " in outcome.out
    shown = [line.split()[1] for line in outcome.out.splitlines() if line.startswith("round ")]
    assert shown[-1] == "60/60"
    assert "1/60" not in shown
    assert outcome.out.count("no differential privacy") == 2
    assert outcome.out.splitlines()[-1] == "run folder: first"


def test_a_private_run_gives_its_result_as_json_and_its_cost_in_the_ledgers(
    calyx: Calyx, tmp_path: Path
) -> None:
    outcome = calyx("simulate", *SHORT, "--out", "first", "--json")
    assert outcome.code == 0, outcome.err
    (line,) = outcome.out.splitlines()
    result = json.loads(line)
    assert list(result) == JSON_KEYS
    assert (result["rounds"], result["clients"], result["rejected"]) == (2, 3, 0)
    assert 0 < result["epsilon_max"] <= 8.0
    assert result["run_dir"] == str(tmp_path / "first")
    lines = outcome.err.splitlines()
    assert lines[2].startswith("ε ≤ 8 at δ = 0.0001 for each record, local noise")
    assert [line.split()[1] for line in lines if line.startswith("round ")] == ["1/2", "2/2"]
    assert all(line.isprintable() for line in lines)

    ledgers = sorted((tmp_path / "first" / "ledgers").iterdir())
    outcomes = [calyx("client", "budget", str(path), "--json", "--verify") for path in ledgers]
    budgets = [json.loads(outcome.out) for outcome in outcomes]
    assert max(budget["epsilon"] for budget in budgets) == result["epsilon_max"]

    again = calyx("simulate", *SHORT, "--out", "first")
    assert (again.code, again.out) == (2, "")
    assert "continue it with --resume" in again.hint
    other = calyx("simulate", "--set", "seed=1", "--resume", "--out", "first")
    assert (other.code, other.out) == (2, "")
    assert "\n  seed = 1: the run was started with 0\n" in other.err


def test_a_folder_that_cannot_be_made_is_one_line(calyx: Calyx) -> None:
    outcome = calyx("simulate", *SHORT, "--out", "/dev/null/x")
    assert outcome.code == 1
    assert outcome.out == ""
    assert "/dev/null/x" in outcome.error_line
