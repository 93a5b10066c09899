from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from calyx.cli.terminal.quiet import own_streams, set_environment

# Everything a library might do, below and above Python's streams; then the same in Calyx's words.
NOISY_COMMAND = """
import logging, os, subprocess, sys, warnings
from calyx.cli.terminal.console import terminal

def make_noise():
    print("a print")
    warnings.warn("a warning")
    logging.getLogger("some.library").error("a log line")
    os.write(1, b"C++ on standard output\\n")
    os.write(2, b"C++ on standard error\\n")
    subprocess.run([sys.executable, "-c", "print('a child')"], check=True)

verbose = "--verbose" in sys.argv
with terminal(as_json=True, verbose=verbose) as screen:
    make_noise()
    screen.line("our words")
    screen.emit({"epsilon": float("inf"), "nested": [{"x": float("nan"), "y": (1, 2.5)}]})
    make_noise()
print("after, on standard output")
print("after, on standard error", file=sys.stderr)
"""


def run(*arguments: str) -> tuple[list[str], list[str]]:
    """Lines that reached standard output and standard error."""
    done = subprocess.run(
        [sys.executable, "-c", NOISY_COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines(), done.stderr.splitlines()


def test_only_calyx_reaches_the_terminal_and_json_alone_standard_output() -> None:
    out, err = run()
    assert out[1:] == ["after, on standard output"]
    assert err == ["our words", "after, on standard error"]
    assert json.loads(out[0]) == {"epsilon": None, "nested": [{"x": None, "y": [1, 2.5]}]}


def test_verbose_lets_everything_through_on_standard_error() -> None:
    out, err = run("--verbose")
    assert len(out) == 2
    for words in ("a print", "a warning", "a log line", "C++ on standard", "a child", "our words"):
        assert any(words in line for line in err), words


def test_both_streams_work_again_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="inside"), own_streams(verbose=False):
        raise ValueError("inside")
    os.write(1, b"out\n")
    os.write(2, b"err\n")
    assert capfd.readouterr() == ("out\n", "err\n")


def test_no_descriptor_is_left_open() -> None:
    before = set(Path("/dev/fd").iterdir())
    with own_streams(verbose=True):
        pass
    assert set(Path("/dev/fd").iterdir()) == before


def test_nothing_is_reported_to_anybody_and_the_users_own_settings_win(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("FLWR_TELEMETRY_ENABLED", "RAY_USAGE_STATS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLWR_LOG_LEVEL", "DEBUG")
    set_environment(verbose=False)
    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert os.environ["FLWR_LOG_LEVEL"] == "DEBUG"
