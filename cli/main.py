"""The `calyx` command: its sub-commands and how any failure becomes an error and a hint.

Exit codes: 0 done, 1 the run failed, 2 wrong usage or configuration, 130 interrupted.
"""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import click
import typer

from calyx.cli.arguments.help_text import help_text
from calyx.cli.commands.audit import app as audit_app
from calyx.cli.commands.authority import app as authority_app
from calyx.cli.commands.client import app as client_app
from calyx.cli.commands.data import app as data_app
from calyx.cli.commands.plan import plan
from calyx.cli.commands.presets import presets
from calyx.cli.commands.report import report
from calyx.cli.commands.server import app as server_app
from calyx.cli.commands.simulate import simulate
from calyx.cli.doctor.doctor import doctor
from calyx.cli.terminal.failure import FAILED, INTERRUPTED, USAGE, explain
from calyx.cli.terminal.quiet import flush, set_environment
from calyx.cli.termination import like_an_interrupt

app = typer.Typer(
    name="calyx",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (simulate, report, presets, plan, doctor):
    app.command(help=help_text(command))(command)
app.add_typer(data_app, name="data")
app.add_typer(server_app, name="server")
app.add_typer(client_app, name="client")
app.add_typer(authority_app, name="authority")
app.add_typer(audit_app, name="audit")


def _print_version(asked: bool) -> None:
    if asked:
        from calyx.shared.protocol.identity import software_version

        typer.echo(f"calyx {software_version()}")
        raise typer.Exit


def calyx(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Private federated learning: data stay where they are, and epsilon is accounted for.

    Start with calyx simulate: it trains on real data that come with Calyx. To run a federation on
    several machines, see calyx server, calyx client and calyx authority.

    [bold]Examples[/bold]
    calyx doctor
    calyx simulate
    calyx plan --set privacy.epsilon=3
    """


app.callback(help=help_text(calyx))(calyx)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; no exception leaves, no traceback is shown."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    verbose = "--verbose" in words
    set_environment(verbose=verbose)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without Greek letters shows question marks instead of failing.
            stream.reconfigure(errors="replace")
    try:
        with like_an_interrupt():
            code = app(words, prog_name="calyx", standalone_mode=False)
        flush()
        return int(code or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        if text := error.format_message():
            typer.echo(text, err=True)
        return USAGE
    except BrokenPipeError:
        return FAILED  # the reader of the output has gone; there is no one to tell
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Exception as error:
        from calyx.cli.terminal.console import report_error

        if verbose:
            traceback.print_exc()
        failure = explain(error)
        report_error(failure.message, failure.hints, failure.details)
        return failure.exit_code


if __name__ == "__main__":
    sys.exit(main())
