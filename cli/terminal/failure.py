"""From an exception to one line and an exit code."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass

import click

from calyx.shared.errors import CalyxError

USAGE, FAILED, INTERRUPTED = 2, 1, 130


@dataclass(frozen=True)
class Failure:
    """What the user is told: one line, and the command's exit code."""

    message: str
    exit_code: int


def explain(error: BaseException) -> Failure:
    """Say what went wrong and what to do, never how the code looked inside."""
    match error:
        case CalyxError():
            return Failure(str(error), error.exit_code)
        case click.UsageError():
            return Failure(_usage(error), USAGE)
        case click.ClickException():
            return Failure(error.format_message(), USAGE)
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            place = f" at {error.filename}" if error.filename else ""
            return Failure(
                f"the disk is full{place}; free some space and try again, calyx simulate with "
                "--resume goes on where a run stopped",
                FAILED,
            )
        case OSError():
            place = f"{error.filename}: " if error.filename else ""
            return Failure(f"{place}{error.strerror or error}", FAILED)
        case ImportError():
            return Failure(f"{error}; calyx doctor tells what is missing or broken", FAILED)
        case MemoryError():
            return Failure(
                "not enough memory; use fewer --workers or a smaller training.batch_size", FAILED
            )
        case _:
            first_line = (str(error).strip().splitlines() or [""])[0]
            detail = f": {first_line}" if first_line else ""
            return Failure(
                f"unexpected {type(error).__name__}{detail}; this is a fault in Calyx, the same "
                "command with --verbose shows where",
                FAILED,
            )


def _usage(error: click.UsageError) -> str:
    # Typer and Click both add a suggestion to some messages.
    sentences = dict.fromkeys(re.split(r"(?<=[.?]) ", error.format_message()))
    message = "; ".join(s.rstrip(".")[:1].lower() + s.rstrip(".")[1:] for s in sentences)
    command = error.ctx.command_path if error.ctx is not None else "calyx"
    return f"{message}; see {command} --help"
