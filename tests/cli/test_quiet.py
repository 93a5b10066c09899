from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest

from cli.console import terminal
from cli.quiet import own_streams, set_environment


def make_noise() -> None:
    """Everything a library might do, below and above Python's streams."""
    print("a print")  # noqa: T201
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("a warning", stacklevel=1)
    os.write(1, b"C++ on standard output\n")
    os.write(2, b"C++ on standard error\n")
    subprocess.run([sys.executable, "-c", "print('a child')"], check=True)


def test_nothing_but_calyx_reaches_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with terminal() as screen:
        make_noise()
        screen.line("ours")
        make_noise()
    assert capfd.readouterr() == ("ours\n", "")


def test_verbose_lets_everything_through_but_not_on_standard_output(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with terminal(as_json=True, verbose=True) as screen:
        make_noise()
        screen.emit({"ok": True, "epsilon": float("inf"), "nested": [{"x": float("nan")}]})
    out, err = capfd.readouterr()
    assert out == '{"ok": true, "epsilon": null, "nested": [{"x": null}]}\n'
    for words in ("a print", "C++ on standard output", "C++ on standard error", "a child"):
        assert words in err


def test_both_streams_work_again_afterwards_whatever_happened(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ValueError, match="inside"), own_streams(verbose=False):
        raise ValueError("inside")
    os.write(1, b"out\n")
    os.write(2, b"err\n")
    assert capfd.readouterr() == ("out\n", "err\n")


def test_nothing_is_reported_to_anybody_and_the_users_own_settings_win(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("FLWR_TELEMETRY_ENABLED", raising=False)
    monkeypatch.setenv("FLWR_LOG_LEVEL", "DEBUG")
    set_environment(verbose=False)
    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ["FLWR_LOG_LEVEL"] == "DEBUG"
