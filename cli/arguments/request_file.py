"""Reading an enrolment request from a device, and the fingerprint that goes with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calyx.cli.terminal.console import Terminal
from calyx.shared.errors import ConfigError, UsageError

Fingerprint = Annotated[
    str | None,
    typer.Option(
        metavar="XXXX-XXXX-...",
        help="The fingerprint, as the device's owner reads it out.",
        show_default="asked for",
    ),
]


def request_text(path: Path) -> str:
    """The text of an enrolment request.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(
            f"{path} cannot be read: {reason}",
            hint="name the file request.json of the device",
        ) from None


def stated_fingerprint(screen: Terminal, given: str | None) -> str:
    """The fingerprint that the operator has from the device's owner.

    It is asked for, and not shown for a nod: what the owner said is compared here, all of it,
    and a forged request cannot be waved through.

    Args:
        screen: where to ask.
        given: on the command line; None to ask.

    Raises:
        UsageError: none was given and there is no terminal to ask at.
    """
    stated = given
    if stated is None:
        stated = screen.ask("fingerprint, as the device's owner reads it out:")
    if not stated:
        raise UsageError(
            "a request is approved only with the fingerprint that the device's owner reads out",
            hint=(
                "get it by telephone or in person, and add --fingerprint XXXX-XXXX-..., all eight "
                "groups"
            ),
        )
    return stated
