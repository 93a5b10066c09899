"""``calyx audit selftest``: is the auditor itself right?"""

from __future__ import annotations

import typer

from calyx.cli.arguments.options import AsJson, Verbose
from calyx.shared.privacy.epsilon_text import epsilon_text, lower_bound_text, promise_text

NAMES = {
    "steinke": "Steinke et al.",
    "fdp": "f-DP in one run",
    "clopper_pearson": "Clopper-Pearson",
    "gaussian": "Gaussian model",
    "largest_proven": "largest of the first three",
}


def selftest(
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Test the auditor's bounds on mechanisms whose epsilon is known.

    Each bound may find leakage in at most 5 % of the runs in which there is none, may exceed the
    true epsilon in at most 5 % of the others, and must give the published figures. A copy of a
    bound with a known fault (no delta) must be detected. It takes about half a minute.

    [bold]Examples[/bold]
    calyx audit selftest
    calyx audit selftest --json
    """
    from calyx.cli.terminal.console import table, terminal
    from calyx.cli.terminal.progress import progress

    with terminal(as_json=as_json, verbose=verbose) as screen:
        from calyx.audit.selftest.calibration import CANARIES, EPSILONS, LARGEST, SAMPLED, run

        with progress(screen) as step:
            found = run(progress=step)
        headings = ("false alarms", *(f"ε = {promise_text(epsilon)}" for epsilon in EPSILONS))
        shown = table("bound", *headings, right=headings)
        alarms = {**found.null_positive_rate, LARGEST: found.largest_null_positive_rate}
        for name, rate in alarms.items():
            shares = [f"{100 * share:.1f} %" for share in found.coverage[name].values()]
            shown.add_row(NAMES[name], f"{100 * rate:.1f} %", *shares)
        screen.line(f"{found.runs} null runs; runs whose bound is not above the true epsilon")
        screen.show(shown)
        for epsilon, share in found.coverage[SAMPLED].items():
            screen.line(
                f"f-DP with sampled batches, ε = {epsilon_text(epsilon)}: {100 * share:.1f} %"
            )
        screen.line(f"ceiling of {CANARIES:,} canaries: ε = {lower_bound_text(found.ceiling)}")
        for pin in found.pins:
            verdict = "as published" if pin.holds else "WRONG"
            screen.line(f"published {pin.expected}, found {pin.found:.4f}: {verdict}")
        caught = "found out" if found.delta_mutant_caught else "NOT found out"
        screen.line(f"the bound without delta: {caught}")
        screen.line("passed" if found.passed else "FAILED", style="bold")
        screen.emit(found.as_dict())
    if not found.passed:
        raise typer.Exit(1)
