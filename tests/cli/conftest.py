"""What the tests of the command share: the command in this process, the command as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.main import main


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def error_line(self) -> str:
        """The one line on standard error."""
        (line,) = self.err.splitlines()
        return line


@pytest.fixture(autouse=True)
def _environment_as_before() -> Iterator[None]:
    """The command sets variables for libraries and workers; other tests must not inherit them."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def calyx(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run ``calyx ARGUMENTS`` in this process."""

    def call(*arguments: str) -> Outcome:
        capfd.readouterr()
        code = main(arguments)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def calyx_process(tmp_path: Path) -> Callable[..., Outcome]:
    """Run ``calyx ARGUMENTS`` as its own process, in an empty folder, with one thread."""

    def call(*arguments: str, **variables: str) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "cli.main", *arguments],
            capture_output=True,
            encoding="utf-8",
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
            timeout=240,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def start_event() -> dict[str, Any]:
    """The first event of a private run."""
    return {
        "event": "start",
        "run_dir": "/runs/first",
        "preset": "digits-cnn",
        "rounds": 20,
        "first_round": 1,
        "clients": 10,
        "train_records": 1437,
        "test_records": 360,
        "parameters": 9258,
        "unit": "record",
        "noise": "local",
        "epsilon_target": 8.0,
        "delta": 1e-4,
        "noise_multiplier": 1.5237,
        "engine": "local",
        "workers": 2,
    }


@pytest.fixture
def round_event() -> Callable[..., dict[str, Any]]:
    """A round in which all went well, but for the given fields."""

    def make(number: int, **fields: Any) -> dict[str, Any]:
        event = {
            "event": "round",
            "round": number,
            "accuracy": 0.5 + number / 100,
            "loss": 1.0 / number,
            "epsilon_max": number / 10,
            "ok": 10,
            "asked": 10,
            "declined": [],
            "failed": [],
            "rejected": [],
            "skipped": False,
            "seconds": 0.25,
        }
        return event | fields

    return make


@pytest.fixture
def result() -> dict[str, Any]:
    """How the run ended."""
    return {
        "accuracy": 0.8312,
        "loss": 0.6,
        "epsilon_max": 7.9987,
        "delta": 1e-4,
        "noise_multiplier": 1.5237,
        "rounds": 20,
        "clients": 10,
        "rejected": 1,
        "seconds": 24.1,
        "seconds_per_round": 0.8,
        "run_dir": "/runs/first",
    }
