"""``calyx doctor``: whether this machine can run Calyx, and what to do if not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from calyx.cli.arguments.options import AsJson, Verbose

if TYPE_CHECKING:
    from calyx.cli.doctor.check import Check
    from calyx.cli.terminal.console import Terminal

_STYLES = {"ok": "green", "note": "yellow", "fault": "bold red"}


def doctor(as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Check this machine: versions, libraries, processor, GPU, disk, and whose code runs.

    Compiled libraries are not only imported but used: a matrix product with torch, per-sample
    gradients with Opacus, an encrypted sum with TenSEAL. Each fault comes with a hint on how to
    fix it. The exit code is 1 if there is a fault; a note stops nothing.

    [bold]Examples[/bold]
    calyx doctor
    calyx doctor --json
    """
    from calyx.cli.terminal.console import terminal

    with terminal(as_json=as_json, verbose=verbose) as screen:
        with screen.busy("checking"):
            checks = _checks()
        faults = sum(check.status == "fault" for check in checks)
        _show(screen, checks, faults)
        screen.emit({"ok": not faults, "checks": [check.as_dict() for check in checks]})
    if faults:
        raise typer.Exit(1)


def _checks() -> list[Check]:
    from calyx.cli.doctor.machine import disk_check, library_checks, processor_check
    from calyx.cli.doctor.packages import ownership_checks, python_check, version_checks

    return [
        python_check(),
        *version_checks(),
        *ownership_checks(),
        processor_check(),
        *library_checks(),
        disk_check(Path.cwd()),
    ]


def _show(screen: Terminal, checks: list[Check], faults: int) -> None:
    from rich.table import Table
    from rich.text import Text

    from calyx.cli.terminal.console import plain
    from calyx.cli.terminal.formatting import count_text

    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True)
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for check in checks:
        mark = Text(check.status, style=_STYLES[check.status])
        made.add_row(mark, plain(check.name), Text(plain(check.found)))
        if check.fix:
            made.add_row("", "", Text(f"hint: {plain(check.fix)}", style="bold"))
    screen.show(made)
    screen.line()
    verdict = count_text(faults, "fault") if faults else "no faults; calyx simulate will run here"
    screen.line(verdict, style="bold red" if faults else "bold green")
