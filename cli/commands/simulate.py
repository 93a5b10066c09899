"""``calyx simulate``: a whole federation on this machine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calyx.cli.arguments.options import AsJson, DataDir, OwnTask, Settings, Start, Verbose
from calyx.cli.commands.report import require_report_packages, short

if TYPE_CHECKING:
    from calyx.cli.terminal.console import Terminal


class Engine(StrEnum):
    """Runtimes of a simulation."""

    LOCAL = "local"
    RAY = "ray"


def simulate(
    preset: Annotated[
        str | None,
        typer.Argument(
            metavar="[PRESET|FILE.toml]",
            show_default="digits-cnn",
            help="A preset, or a file of your own.",
        ),
    ] = None,
    settings: Settings = None,
    engine: Annotated[
        Engine, typer.Option(help="local: processes of Calyx; ray: Flower's Ray runtime.")
    ] = Engine.LOCAL,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Client processes; the result does not depend on it.",
            show_default="one per core",
        ),
    ] = None,
    data_dir: DataDir = None,
    task: OwnTask = None,
    start: Start = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The run folder.", show_default="runs/PRESET-TIME"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run where it stopped.")
    ] = False,
    with_report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write the privacy report of the run.")
    ] = True,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Train a model over simulated clients, with the privacy that the preset promises.

    Give the name of a preset (calyx presets lists them) or a TOML file of your own. The default
    is digits-cnn, whose data come with Calyx.

    The clients, the server and the accounting are the real ones; only the network is left out.
    Settings, metrics, privacy ledgers, checkpoints, the final model and a privacy report are kept
    in the run folder, so a run that was stopped can be continued with --resume.

    [bold]Examples[/bold]
    calyx simulate
    calyx simulate digits-cnn --set privacy.epsilon=3 --set seed=1
    calyx simulate --set privacy.noise=none
    calyx simulate my-run.toml --data-dir ~/mnist --workers 4
    calyx simulate --task mytask:task --data-dir table.csv
    calyx simulate --out runs/first
    calyx simulate --out runs/first --resume
    """
    from calyx.cli.terminal.console import terminal
    from calyx.cli.terminal.run_display import RunDisplay
    from calyx.cli.terminal.run_summary import run_summary
    from calyx.server.state.outcome import check_effect

    with terminal(as_json=as_json, verbose=verbose) as screen:
        display = RunDisplay(screen)
        try:
            with display:
                from calyx.simulations import run

                result = run(
                    preset,
                    settings=settings or (),
                    data_dir=data_dir,
                    task=task,
                    start=start,
                    out=out,
                    engine=engine.value,
                    workers=workers,
                    resume=resume,
                    verbose=verbose,
                    on_event=display.on_event,
                ).as_dict()
        except KeyboardInterrupt:
            folder = display.start["run_dir"] if display.start else out
            if folder is None:
                screen.line("stopped before the first round; nothing was trained")
            else:
                screen.line(
                    f"stopped; continue with: calyx simulate --resume --out {short(folder)}"
                )
            raise typer.Exit(130) from None
        screen.line()
        screen.show(run_summary(result, display.start, display.rounds))
        screen.line()
        report = _report(screen, Path(result["run_dir"])) if with_report else None
        screen.line(f"run folder: {short(result['run_dir'])}")
        screen.emit(result | ({"report": str(report)} if report else {}))
        check_effect(display.rounds)


def _report(screen: Terminal, run_dir: Path) -> Path | None:
    """Write the report of the run; a run without one is a run all the same."""
    from calyx.shared.errors import CalyxError

    try:
        require_report_packages("the privacy report")
        with screen.busy("writing the privacy report"):
            from calyx.audit.run import report_new_run

            done = report_new_run(run_dir)
    except CalyxError as error:
        screen.warn(f"no report was made: {error}", hint=error.hint)
        return None
    headline = done.report.headline
    if headline.status not in ("guaranteed", "no guarantee"):
        screen.warn(f"{headline.title}; see the report")
    screen.line(f"privacy report: {short(done.html_path)}")
    return done.html_path
