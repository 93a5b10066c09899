"""``calyx audit``: what a run really gave away, measured."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cli.audit_mutants import mutants
from cli.audit_selftest import selftest
from cli.help_text import help_text
from cli.options import AsJson, Verbose
from cli.report import RunDir, require_report_packages, short, show_headline

app = typer.Typer(no_args_is_help=True, help="Audit a run: what was guaranteed, what was measured.")

Names = Annotated[
    str, typer.Option(metavar="A,B", help="Attacks to leave out, separated by commas.")
]
Only = Annotated[str, typer.Option(metavar="A,B", help="Run these attacks only.")]


def run(
    run_dir: RunDir,
    skip: Names = "",
    only: Only = "",
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Attack a finished run and write its whole privacy report.

    The run is repeated with canary records whose presence is decided by coins, and by an observer
    who sees what each party would see; what they find is held against what is guaranteed.
    Everything is kept as evidence, so that calyx audit verify can compute each figure again. Ten
    minutes at most for the default preset on two cores. Attacks: unprotected (the same run without
    privacy, for its accuracy), canaries, membership, inversion.

    [bold]Examples[/bold]
    calyx audit run runs/first
    calyx audit run runs/first --skip membership,inversion
    calyx audit run runs/first --only canaries --json
    """
    from cli.console import terminal
    from cli.progress import progress

    started = time.monotonic()
    require_report_packages("calyx audit")
    with terminal(as_json=as_json, verbose=verbose) as screen:
        with screen.busy("reading the run"):
            from audit.run import audit_run, lower_bounds_by_method

        with progress(screen) as tell:
            done = audit_run(run_dir, skip=_names(skip), only=_names(only), progress=tell)
        found = done.report
        show_headline(screen, found)
        for step in found.audit.steps:
            if not step.done:
                screen.line(f"left out: {step.name} ({step.reason})", style="dim")
        screen.line(f"report: {short(done.html_path)}")
        screen.line(f"verify: calyx audit verify {short(done.json_path)}")
        screen.emit(
            {
                "guarantee_epsilon": found.guarantee.epsilon,
                "lower_bounds": lower_bounds_by_method(found),
                "status": found.headline.status,
                "seconds": round(time.monotonic() - started, 1),
                "report": str(done.html_path),
            }
        )
    if found.headline.status == "contradicted":
        raise typer.Exit(1)


def verify(
    report: Annotated[
        Path, typer.Argument(metavar="REPORT.json", help="The report in its run folder.")
    ],
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Compute every figure of a report again, from the evidence in its run folder.

    No training data are needed. Fails if one byte of the report, of its evidence, of a ledger or of
    any other file of the run is not what it was when the report was made, or if the coins of the
    canaries were not committed to before the first round.

    [bold]Examples[/bold]
    calyx audit verify runs/first/audit/report.json
    """
    from cli.console import facts, terminal

    require_report_packages("calyx audit")
    with terminal(as_json=as_json, verbose=verbose) as screen:
        with screen.busy("computing the report again"):
            from audit.verify import verify as verify_report

            found = verify_report(report)
        page = "report.json and report.html" if found.html else "report.json"
        screen.line("verified", style="bold green")
        screen.show(
            facts(
                {
                    "same, byte by byte": page,
                    "evidence": f"{found.pieces} pieces, head {found.head}",
                    "run": f"{found.files} files, {found.ledgers} ledgers",
                    "ε": found.report.headline.title,
                }
            )
        )
        screen.emit(
            {
                "verified": True,
                "guarantee_epsilon": found.report.guarantee.epsilon,
                "evidence": found.pieces,
                "files": found.files,
                "ledgers": found.ledgers,
                "evidence_head": found.head,
                "seconds": round(found.seconds, 3),
            }
        )


def compare(
    run_dirs: Annotated[
        list[Path], typer.Argument(metavar="RUN_DIR...", help="Folders of finished runs.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the page goes.")] = Path(
        "comparison.html"
    ),
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Put several runs on one page: accuracy against epsilon.

    [bold]Examples[/bold]
    calyx audit compare runs/first runs/second
    calyx audit compare runs/* --out comparison.html --json
    """
    from cli.console import table, terminal

    require_report_packages("calyx audit")
    with terminal(as_json=as_json, verbose=verbose) as screen:
        with screen.busy("reading the runs"):
            from audit.compare import compare as compare_runs
            from audit.compare import write_comparison
            from audit.report.tables import compared_lines

            found = compare_runs(run_dirs)
            write_comparison(found, out)
        figures = ("ε", "δ", "measured ε ≥", "accuracy", "cost, points")
        shown = table("run", "noise", "encryption", "unit", *figures, right=figures)
        for line in compared_lines(found):
            shown.add_row(*line)
        screen.show(shown)
        for note in found.notes:
            screen.warn(note)
        screen.line(f"page: {short(out)}")
        screen.emit({**found.model_dump(mode="json"), "report": str(out.absolute())})


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


for command in (run, verify, compare, selftest, mutants):
    app.command(help=help_text(command))(command)
