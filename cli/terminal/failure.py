"""From an exception to what the user reads, and an exit code."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass

import click

from calyx.shared.errors import CalyxError, ConfigError

USAGE, FAILED, INTERRUPTED = 2, 1, 130


@dataclass(frozen=True)
class Failure:
    """What the user is told, and the command's exit code.

    Attributes:
        message: one line that says what is wrong.
        exit_code: of the command.
        hints: what to do, a line each; empty where there is nothing to say.
        details: one line for each fault, where there are several.
    """

    message: str
    exit_code: int
    hints: tuple[str, ...] = ()
    details: tuple[str, ...] = ()


def explain(error: BaseException) -> Failure:
    """Say what went wrong and what to do, never how the code looked inside."""
    match error:
        case ConfigError() if len(error.faults) > 1:
            details = tuple(str(fault) for fault in error.faults)
            return Failure(error.summary, error.exit_code, error.hints, details)
        case ConfigError() if error.faults:
            message = f"{error.summary}: {error.faults[0]}"
            return Failure(message, error.exit_code, error.hints)
        case CalyxError():
            return Failure(str(error), error.exit_code, _one(error.hint))
        case click.UsageError():
            message, suggestions = _usage(error)
            command = error.ctx.command_path if error.ctx is not None else "calyx"
            return Failure(message, USAGE, (*suggestions, f"see {command} --help"))
        case click.ClickException():
            return Failure(error.format_message(), USAGE)
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            place = f" at {error.filename}" if error.filename else ""
            return Failure(
                f"the disk is full{place}",
                FAILED,
                ("free some space and try again; calyx simulate --resume continues a stopped run",),
            )
        case OSError():
            place = f"{error.filename}: " if error.filename else ""
            return Failure(f"{place}{error.strerror or error}", FAILED, _one(_os_hint(error)))
        case ImportError():
            return Failure(str(error), FAILED, ("calyx doctor shows what is missing or broken",))
        case MemoryError():
            return Failure(
                "not enough memory",
                FAILED,
                ("use fewer --workers or a smaller training.batch_size",),
            )
        case _:
            first_line = (str(error).strip().splitlines() or [""])[0]
            detail = f": {first_line}" if first_line else ""
            return Failure(
                f"unexpected {type(error).__name__}{detail}",
                FAILED,
                ("this is a fault in Calyx; the same command with --verbose shows where",),
            )


def _one(hint: str) -> tuple[str, ...]:
    return (hint,) if hint else ()


def _os_hint(error: OSError) -> str:
    match error:
        case FileNotFoundError():
            return "check the path"
        case PermissionError():
            return "check who owns it and who may read and write it"
        case _:
            return ""


def _usage(error: click.UsageError) -> tuple[str, list[str]]:
    """What is wrong, and what was perhaps meant."""
    # Typer and Click both add a suggestion to some messages.
    sentences = dict.fromkeys(re.split(r"(?<=[.?]) ", error.format_message()))
    words = [s.rstrip(".")[:1].lower() + s.rstrip(".")[1:] for s in sentences]
    message = "; ".join(word for word in words if not word.endswith("?"))
    return message, [word for word in words if word.endswith("?")]
