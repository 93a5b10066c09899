"""``calyx audit mutants``: would the audit find out if the training were wrong?"""

from __future__ import annotations

import typer

from calyx.cli.arguments.options import AsJson, Verbose

_ENOUGH = 0.9


def mutants(as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Plant known faults in the training, one at a time, and check that the audit finds them.

    There are some thirty faults (no noise, half the noise, noise of another law or in all layers
    but one, no clipping, reused noise, accountants that forget or halve, batches that are not
    drawn as claimed, rounding that is not secret, ...) and twenty clean runs, each a small
    federation that is audited with all attacks.

    It takes a few minutes, and fails if more than one fault in ten is missed or if a clean run is
    suspected.

    [bold]Examples[/bold]
    calyx audit mutants
    calyx audit mutants --json
    """
    from calyx.cli.terminal.console import table, terminal
    from calyx.cli.terminal.progress import progress

    with terminal(as_json=as_json, verbose=verbose) as screen:
        from calyx.audit.selftest.mutants import run

        with progress(screen) as step:
            found = run(progress=step)
        shown = table("planted fault", "found by")
        for verdict in found.mutants:
            shown.add_row(verdict.name, "; ".join(verdict.flags) or "NOT FOUND")
        screen.show(shown)
        screen.line()
        screen.line(
            f"{found.caught} of {len(found.mutants)} faults found, {found.false_alarms} false "
            f"alarms in {len(found.clean)} clean runs",
            style="bold",
        )
        screen.emit(found.as_dict())
    if found.caught < _ENOUGH * len(found.mutants) or found.false_alarms:
        raise typer.Exit(1)
