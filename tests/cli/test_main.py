from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import click
import pytest
import typer

from calyx.cli.arguments.help_text import EXAMPLES
from calyx.cli.main import app

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


def _commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, *path, name)
        else:
            yield (*path, name)


COMMANDS = list(_commands(cast(click.Group, typer.main.get_command(app))))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(("calyx", *words)))
def test_every_command_says_what_it_is_for_and_shows_examples_at_80_columns(
    calyx: Calyx, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = calyx(*command, "--help")
    assert (shown.code, shown.err) == (0, "")
    lines = [line.rstrip() for line in shown.out.splitlines()]
    assert max(map(len, lines)) <= 80
    start = next(number for number, line in enumerate(lines) if line.strip() == "Examples")
    purpose = " ".join(" ".join(lines[:start]).split())
    assert len(purpose) > len("Usage: calyx [OPTIONS]") + 30
    examples = lines[start + 1 : start + 1 + lines[start + 1 :].index("")]
    # A line that was too long for the terminal would go on without an indent of its own.
    assert all(line.startswith((" calyx ", "     --")) for line in examples)
    assert any(" ".join(("calyx", *command)) in line for line in examples)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(("calyx", *words)))
def test_every_example_is_a_command_with_options_that_there_are(command: tuple[str, ...]) -> None:
    for example in _examples(command):
        context = click.Context(cast(click.Group, typer.main.get_command(app)), info_name="calyx")
        found: click.Command = context.command
        words = shlex.split(example)[1:]
        while isinstance(found, click.Group):
            found = found.commands[words.pop(0)]
        found.make_context("calyx", words, resilient_parsing=False)


def _examples(command: tuple[str, ...]) -> list[str]:
    found: click.Command = typer.main.get_command(app)
    for name in command:
        found = cast(click.Group, found).commands[name]
    _, _, block = (found.help or "").partition(EXAMPLES)
    return block.strip().split("\n\n")[0].replace("\\\n", "").splitlines()


def test_version_is_the_one_of_the_distribution(calyx: Calyx) -> None:
    from importlib.metadata import version

    assert calyx("--version").out == f"calyx {version('calyx-fl')}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["simulat"], "no such command 'simulat'\nhint: did you mean 'simulate'?"),
        (["simulat"], "hint: see calyx --help"),
        (["plan", "--foo"], "no such option '--foo'\nhint: see calyx plan --help"),
        (["simulate", "--workers", "0"], "0 is not in the range"),
        (["simulate", "--engine", "spark"], "'spark' is not one of 'local', 'ray'"),
        (["simulate", "digit-cnn"], "no preset 'digit-cnn'\nhint: did you mean digits-cnn?"),
        (["plan", "digit-cnn"], "hint: did you mean digits-cnn?"),
        (["plan", "missing.toml"], "missing.toml cannot be read: No such file or directory"),
        (["plan", "--set", "privacy.epsilo=3"], "no such key\nhint: did you mean privacy.epsilon?"),
        (
            ["plan", "--set", "privacy.epsilon=-1"],
            "privacy.epsilon = -1: must be greater than or equal to 0.001",
        ),
        (["plan", "--set", "epsilon"], "not a setting"),
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
    assert outcome.error_line
    assert words in outcome.err


def test_all_faults_of_a_file_are_told_at_once(calyx: Calyx, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[training]\nrounds = 0\n[model]\nname = 'cnn'\ncolour = 'red'\n")
    outcome = calyx("plan", str(file))
    assert outcome.code == 2
    assert outcome.error_line == "the configuration is not valid"
    assert "\n  training.rounds = 0: " in outcome.err
    assert "\n  model.colour = " in outcome.err
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
    assert outcome.error_line == "unexpected ZeroDivisionError: by zero"
    assert outcome.hint.startswith("this is a fault in Calyx")
    verbose = calyx("plan", "--verbose")
    assert verbose.code == 1
    assert "Traceback" in verbose.err
    assert "in _broken" in verbose.err
    assert verbose.err.splitlines()[-2].startswith("error: unexpected ZeroDivisionError")


def test_a_full_disk_and_a_reader_that_has_gone_are_no_tracebacks() -> None:
    command = [sys.executable, "-P", "-m", "calyx.cli.main", "presets"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the disk is full")
    assert done.stderr.splitlines()[1].startswith("hint: free some space")
    assert done.stderr.count("\n") == 2
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
