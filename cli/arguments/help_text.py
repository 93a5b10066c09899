"""Text in the source as ``--help`` of a command or of a group of commands."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

EXAMPLES = "[bold]Examples[/bold]"


def help_text(of: Callable[..., Any] | str) -> str:
    """A command's docstring, or a text, with each paragraph on one line.

    It is wrapped at the terminal's width. Only the examples keep their lines: they are there to be
    copied.
    """
    text = of if isinstance(of, str) else of.__doc__ or ""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        paragraph if paragraph.startswith(EXAMPLES) else " ".join(paragraph.split())
        for paragraph in paragraphs
    )
