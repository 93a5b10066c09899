"""Everything Calyx writes to the terminal goes through here.

Rules: words for people go to standard output, or to standard error with ``--json``; the JSON
object is one line and the last one. Colours, bars and other control characters appear only on a
terminal. Text that came from elsewhere (a client's reason, a path, a library's message) cannot
bring control characters or markup of its own.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from calyx.cli.terminal.quiet import own_streams


class Terminal:
    """Standard output and error of one command.

    Attributes:
        human: where words for people go.
    """

    def __init__(self, out: TextIO, err: TextIO, *, as_json: bool = False) -> None:
        self._out, self._err, self._as_json = out, err, as_json
        self.human = Console(
            file=err if as_json else out, highlight=False, markup=False, emoji=False
        )

    @property
    def is_live(self) -> bool:
        """Whether lines can be redrawn; otherwise each line is written once."""
        # FORCE_COLOR makes Rich call a file a terminal; colours there are asked for, bars are not.
        is_one = self.human.is_terminal and self.human.file.isatty()
        return is_one and not self.human.is_dumb_terminal

    def show(self, renderable: RenderableType) -> None:
        """A table or a laid-out text."""
        self.human.print(renderable)

    def line(self, text: str | Text = "", style: str = "") -> None:
        """One line, never wrapped or cut, so that paths can be copied."""
        shown = text if isinstance(text, Text) else Text(plain(text), style=style)
        self.human.print(shown, soft_wrap=True)

    def say(self, sentence: str | Text, style: str = "") -> None:
        """A sentence: wrapped between words on a terminal, one line elsewhere."""
        shown = sentence if isinstance(sentence, Text) else Text(plain(sentence), style=style)
        self.human.print(shown, soft_wrap=not self.human.is_terminal)

    def warn(self, message: str, *, hint: str = "") -> None:
        """Something to think about that stops nothing, and what to do about it."""
        self.say(f"warning: {message}", style="yellow")
        if hint:
            self.say(f"hint: {hint}")

    def ask(self, question: str) -> str | None:
        """What the user types in answer; None where there is no terminal."""
        if sys.stdin is None or not sys.stdin.isatty():
            return None
        self.human.print(Text(plain(question) + " "), end="", soft_wrap=True)
        return sys.stdin.readline().strip()

    def busy(self, what: str) -> AbstractContextManager[object]:
        """Show that something takes a moment; nothing where lines cannot be redrawn."""
        return self.human.status(what) if self.is_live else nullcontext()

    def emit(self, result: Mapping[str, Any]) -> None:
        """With ``--json``: the result as one line; otherwise nothing."""
        if self._as_json:
            self._out.write(json.dumps(_finite(result), allow_nan=False) + "\n")
            self._out.flush()


@contextmanager
def terminal(*, as_json: bool = False, verbose: bool = False) -> Iterator[Terminal]:
    """The terminal for one command; libraries are kept off it until the block ends."""
    with own_streams(verbose=verbose) as (out, err):
        yield Terminal(out, err, as_json=as_json)


def report_error(message: str, hints: Sequence[str] = (), details: Sequence[str] = ()) -> None:
    """What is wrong and what to do about it, on standard error.

    Args:
        message: after ``error:``.
        hints: each after ``hint:``, on a line of its own.
        details: lines between the two, indented: one for each of several faults.
    """
    if sys.stderr is None:
        return
    lines = [Text.assemble(("error: ", "bold red"), plain(message))]
    lines += [Text(f"  {plain(detail)}") for detail in details]
    lines += [Text.assemble(("hint: ", "bold"), plain(hint)) for hint in hints]
    console = Console(file=sys.stderr, highlight=False)
    for line in lines:
        console.print(line, soft_wrap=True)


def table(*headings: str, right: tuple[str, ...] = ()) -> Table:
    """A table without lines, that reads the same in a pipe; headings in `right` align right."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        is_right = heading in right
        made.add_column(heading, justify="right" if is_right else "left", no_wrap=is_right)
    return made


def facts(rows: Mapping[str, str | Text]) -> Table:
    """Names on the left, values on the right."""
    made = Table.grid(padding=(0, 3, 0, 0))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows.items():
        made.add_row(name, value if isinstance(value, Text) else Text(plain(value)))
    return made


def plain(text: str) -> str:
    """One line without control characters, whatever the text was."""
    joined = re.sub(r"\s*[\n\r\t\v\f]+\s*", " ", text.strip("\n\r\t\v\f"))
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in joined)


def whole(text: str) -> Text:
    """A cell that is folded and never cut short, for what is compared or copied."""
    return Text(plain(text), overflow="fold")


def _finite(value: Any) -> Any:
    """JSON has no infinity: null says that there is no such number."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
