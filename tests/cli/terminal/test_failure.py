from __future__ import annotations

import errno

import click
import pytest

from calyx.cli.terminal.console import report_error
from calyx.cli.terminal.failure import explain
from calyx.shared.errors import ConfigError, DataError, Fault, LedgerError, RoundError


@pytest.mark.parametrize(
    ("error", "code", "words", "hint"),
    [
        (ConfigError("no"), 2, "no", ""),
        (DataError("cut short", hint="fetch it again"), 2, "cut short", "fetch it again"),
        (RoundError("too few"), 1, "too few", ""),
        (LedgerError("altered", hint="restore it"), 1, "altered", "restore it"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/runs/x"),
            1,
            "the disk is full at /runs/x",
            "free some space",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1, "/x: Permission denied", ""),
        (ModuleNotFoundError("No module named 'torch'"), 1, "'torch'", "calyx doctor shows"),
        (MemoryError(), 1, "not enough memory", "use fewer --workers"),
        (
            ZeroDivisionError("by zero\nsecond line"),
            1,
            "unexpected ZeroDivisionError: by zero",
            "this is a fault in Calyx",
        ),
        (KeyError(), 1, "unexpected KeyError", "this is a fault in Calyx"),
        (click.BadParameter("not a number"), 2, "not a number", "see calyx --help"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_each_kind_of_error_has_its_exit_code_and_says_what_is_wrong_and_what_to_do(
    error: Exception, code: int, words: str, hint: str
) -> None:
    failure = explain(error)
    assert failure.exit_code == code
    assert words in failure.message
    assert hint in " ".join(failure.hints)
    assert hint not in failure.message or not hint
    assert "\n" not in failure.message


def test_several_faults_of_a_configuration_are_a_line_each_and_so_are_their_hints() -> None:
    faults = [
        Fault("seed", "-1", "must be 0 or more"),
        Fault("privacy.epsilo", "3", "no such key", "did you mean privacy.epsilon?"),
        Fault("data.directory", "''", "source npz needs a folder", "name it with --data-dir DIR"),
    ]
    failure = explain(ConfigError("the configuration is not valid", faults, hint="see the manual"))
    assert failure.message == "the configuration is not valid"
    assert failure.details == (
        "seed = -1: must be 0 or more",
        "privacy.epsilo = 3: no such key",
        "data.directory = '': source npz needs a folder",
    )
    assert failure.hints == ("did you mean privacy.epsilon?", "name it with --data-dir DIR")


def test_one_fault_of_a_configuration_stands_in_the_line_of_the_error() -> None:
    failure = explain(ConfigError("no", [Fault("seed", "-1", "must be 0 or more")], hint="see it"))
    assert failure.message == "no: seed = -1: must be 0 or more"
    assert (failure.details, failure.hints) == ((), ("see it",))


def test_error_and_hint_are_lines_of_standard_error_of_their_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report_error("two\nlines", ["do this", "or\x1b[31m that"], ["a = 1: no"])
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "error: two lines",
        "  a = 1: no",
        "hint: do this",
        "hint: or\N{REPLACEMENT CHARACTER}[31m that",
    ]
    report_error("alone")
    assert capsys.readouterr().err == "error: alone\n"
