"""A command's docstring as its ``--help``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

EXAMPLES = "[bold]Examples[/bold]"


def help_text(command: Callable[..., Any]) -> str:
    """The docstring with each paragraph on one line, to be wrapped at the terminal's width.

    Only the examples keep their lines: they are there to be copied.
    """
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join(
        paragraph if paragraph.startswith(EXAMPLES) else " ".join(paragraph.split())
        for paragraph in paragraphs
    )
