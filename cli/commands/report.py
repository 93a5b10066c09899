"""``calyx report``: what a run guarantees, on one page, without attacks."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calyx.cli.arguments.options import AsJson, Verbose

if TYPE_CHECKING:
    from calyx.audit.report.schema import Report
    from calyx.cli.terminal.console import Terminal

RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a finished run.")]


def report(run_dir: RunDir, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Write the privacy report of a finished run: report.html for people, report.json for programs.

    RUN_DIR is the folder of the run. What is guaranteed is computed again from the run's privacy
    ledgers. No attack is run, so it takes seconds; calyx audit run also measures. calyx simulate
    makes this report by itself.

    [bold]Examples[/bold]
    calyx simulate --out runs/first --no-report
    calyx report runs/first
    calyx report runs/first --json
    """
    from calyx.cli.terminal.console import terminal

    started = time.monotonic()
    require_report_packages("calyx report")
    with terminal(as_json=as_json, verbose=verbose) as screen:
        with screen.busy("reading the run"):
            from calyx.audit.run import report_run

            done = report_run(run_dir)
        show_headline(screen, done.report)
        screen.line(f"report: {short(done.html_path)}")
        screen.emit(
            {
                "guarantee_epsilon": done.report.guarantee.epsilon,
                "status": done.report.headline.status,
                "metrics": metrics_by_name(done.report),
                "seconds": round(time.monotonic() - started, 3),
                "report": str(done.html_path),
            }
        )


def require_report_packages(purpose: str) -> None:
    """See that what a report needs is installed.

    Raises:
        UsageError: naming the extra.
    """
    from calyx.shared.host.optional_packages import require

    for package in ("jinja2", "matplotlib"):
        require(package, "audit", purpose)


def show_headline(screen: Terminal, found: Report) -> None:
    """What matters most, as on the report's first page."""
    from calyx.cli.terminal.console import facts

    headline = found.headline
    styles = {"guaranteed": "bold green", "not confirmed": "bold yellow"}
    mark = "SIMULATED  " if headline.simulated else ""
    screen.line(mark + headline.title, style=styles.get(headline.status, "bold red"))
    screen.show(
        facts(
            {
                "guaranteed": headline.guaranteed.strip(),
                "for whom": headline.for_whom,
                "against whom": headline.against_whom,
                "measured": headline.measured,
                "model": headline.model,
            }
        )
    )
    for comparison in found.agreement.comparisons:
        if not comparison.agrees:
            screen.warn(
                f"{comparison.what}: the ledgers say {comparison.ledgers}, {comparison.source} "
                f"says {comparison.other}"
            )


def metrics_by_name(found: Report) -> dict[str, float | None]:
    """The metrics of the run's task on test records, the headline first."""
    return {one.metric.name: one.value for one in found.utility.metrics}


def short(path: str | Path) -> str:
    """Relative to where the user is, if it lies there."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
