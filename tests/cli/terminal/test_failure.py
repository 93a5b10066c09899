from __future__ import annotations

import errno

import click
import pytest

from calyx.cli.terminal.failure import explain
from calyx.shared.errors import ConfigError, DataError, LedgerError, RoundError


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ConfigError("no"), 2, "no"),
        (DataError("cut short"), 2, "cut short"),
        (RoundError("too few"), 1, "too few"),
        (LedgerError("altered"), 1, "altered"),
        (OSError(errno.ENOSPC, "No space left on device", "/runs/x"), 1, "disk is full at /runs/x"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1, "/x: Permission denied"),
        (ModuleNotFoundError("No module named 'torch'"), 1, "'torch'; calyx doctor tells"),
        (MemoryError(), 1, "not enough memory"),
        (ZeroDivisionError("by zero\nsecond line"), 1, "ZeroDivisionError: by zero; this is a"),
        (KeyError(), 1, "unexpected KeyError; this is a fault in Calyx"),
        (click.BadParameter("not a number"), 2, "see calyx --help"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_each_kind_of_error_has_its_exit_code_and_says_what_it_is(
    error: Exception, code: int, words: str
) -> None:
    failure = explain(error)
    assert failure.exit_code == code
    assert words in failure.message
    assert "\n" not in failure.message
