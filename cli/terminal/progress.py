"""A progress bar for work that is told as (what, share done)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from calyx.audit.progress import Progress as Told
from calyx.cli.terminal.console import Terminal


@contextmanager
def progress(screen: Terminal) -> Iterator[Told]:
    """Give a function that shows how far each kind of work is.

    On a terminal there is one bar a kind; elsewhere a line when a kind begins.
    """
    if not screen.is_live:
        begun: set[str] = set()

        def tell(what: str, share: float) -> None:
            if what not in begun:
                begun.add(what)
                screen.line(what)

        yield tell
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        console=screen.human,
        transient=True,
    )
    tasks: dict[str, TaskID] = {}

    def show(what: str, share: float) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=1.0)
        bar.update(tasks[what], completed=share)

    with bar:
        yield show
