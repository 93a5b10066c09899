from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Calyx = Callable[..., Any]

HEAVY = ("torch", "numpy", "scipy", "sklearn", "opacus", "flwr", "tenseal", "dp_accounting", "ray")


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import json, sys\n"
        "from calyx.cli.main import main\n"
        "code = main(['--help'])\n"
        "print(json.dumps([code, sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=True
    )
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert "calyx.cli.commands.simulate" in modules
    assert not set(HEAVY) & set(modules)


@pytest.mark.parametrize(
    "command", ["simulate", "presets", "plan", "doctor", "client budget"], ids=str
)
def test_every_command_says_what_it_is_for_and_shows_examples(calyx: Calyx, command: str) -> None:
    shown = calyx(*command.split(), "--help")
    assert (shown.code, shown.err) == (0, "")
    lines = [line.strip() for line in shown.out.splitlines()]
    assert any(line.startswith(f"calyx {command}") for line in lines[lines.index("Examples") :])
    assert len(" ".join(lines[: lines.index("Examples")]).split()) > 30


def test_version_is_the_one_of_the_distribution(calyx: Calyx) -> None:
    from importlib.metadata import version

    assert calyx("--version").out == f"calyx {version('calyx-fl')}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["simulat"], "did you mean 'simulate'?; see calyx --help"),
        (["plan", "--foo"], "no such option '--foo'; see calyx plan --help"),
        (["simulate", "--workers", "0"], "0 is not in the range"),
        (["simulate", "--engine", "spark"], "'spark' is not one of 'local', 'ray'"),
        (["simulate", "digit-cnn"], "there is no preset 'digit-cnn'; did you mean digits-cnn?"),
        (["plan", "digit-cnn"], "did you mean digits-cnn?"),
        (["plan", "missing.toml"], "missing.toml cannot be read: No such file or directory"),
        (["plan", "--set", "privacy.epsilo=3"], "did you mean privacy.epsilon?"),
        (
            ["plan", "--set", "privacy.epsilon=-1"],
            "privacy.epsilon = -1: must be greater than or equal to 0.001",
        ),
        (["plan", "--set", "epsilon"], "write it as key=value"),
        (["plan", "--set", "federation.clients=5000"], "5000"),
        (["plan", "fashion-cnn", "--data-dir", "/nowhere"], "/nowhere"),
        (["client", "budget", "missing.sqlite", "--delta", "2"], "2 is not between 0 and 1"),
        (["client", "budget"], "missing argument 'LEDGER'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request_is_one_line_and_exit_code_2(
    calyx: Calyx, arguments: list[str], words: str
) -> None:
    outcome = calyx(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.error_line.startswith("calyx: error: ")
    assert words in outcome.error_line


def test_all_faults_of_a_file_are_told_at_once(calyx: Calyx, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[training]\nrounds = 0\n[model]\nname = 'cnn'\ncolour = 'red'\n")
    outcome = calyx("plan", str(file))
    assert outcome.code == 2
    assert "training.rounds = 0" in outcome.error_line
    assert "model.colour" in outcome.error_line
    file.write_text("rounds = [")
    assert "is not valid TOML" in calyx("plan", str(file)).error_line


def test_without_a_command_the_help_is_shown_and_nothing_is_done(calyx: Calyx) -> None:
    outcome = calyx()
    assert outcome.code == 2
    assert "simulate" in outcome.out + outcome.err


def _broken(config: object) -> object:
    raise ZeroDivisionError("by zero\nwith details")


def test_a_fault_of_our_own_is_one_line_and_verbose_shows_where(
    calyx: Calyx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calyx.cli.commands.forecast.forecast", _broken)
    outcome = calyx("plan")
    assert outcome.code == 1
    assert "unexpected ZeroDivisionError: by zero; this is a fault in Calyx" in outcome.error_line
    verbose = calyx("plan", "--verbose")
    assert verbose.code == 1
    assert "Traceback" in verbose.err
    assert "in _broken" in verbose.err
    assert verbose.err.splitlines()[-1].startswith("calyx: error: unexpected ZeroDivisionError")


def test_a_full_disk_and_a_reader_that_has_gone_are_no_tracebacks() -> None:
    command = [sys.executable, "-P", "-m", "calyx.cli.main", "presets"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("calyx: error: the disk is full")
    assert done.stderr.count("\n") == 1
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


def test_an_output_without_greek_letters_does_not_end_the_command() -> None:
    command = [sys.executable, "-P", "-m", "calyx.cli.main", "presets"]
    done = subprocess.run(
        command, capture_output=True, env={"PYTHONIOENCODING": "ascii"}, check=True
    )
    assert b"? = 8" in done.stdout
    assert done.stderr == b""
