"""What the tests of the command share: the command in this process, and the events of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from calyx.cli.main import main


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def error_line(self) -> str:
        """The line on standard error that says what is wrong."""
        line, *others = self.err.splitlines()
        assert line.startswith("error: ")
        assert all(other.startswith(("  ", "hint: ")) for other in others)
        return line.removeprefix("error: ")

    @property
    def hint(self) -> str:
        """The line after it that says what to do."""
        (line,) = (line for line in self.err.splitlines() if line.startswith("hint: "))
        return line.removeprefix("hint: ")


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
            "reason": "",
            "fault": "",
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
