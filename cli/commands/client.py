"""``calyx client``: what the owner of a device can do."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calyx.cli.arguments.help_text import help_text
from calyx.cli.arguments.options import AsJson, Verbose
from calyx.cli.commands.client_device import enroll, join, status, stop
from calyx.cli.terminal.formatting import NO_PRIVACY, bound_text, count_text
from calyx.shared.errors import LedgerError
from calyx.shared.privacy.epsilon_text import delta_text, epsilon_text, promise_text

if TYPE_CHECKING:
    from calyx.cli.terminal.console import Terminal
    from calyx.client.ledger.ledger import Entry, Ledger

_GROUP = """Run a device of yours, and see what was spent on its records.

DIR is the folder of the device, which calyx client enroll makes.

[bold]Examples[/bold]
calyx client enroll ~/device --server fl.example.org:9441 \\
    --ca for-devices --data ~/records
calyx client join ~/device
calyx client status ~/device
calyx client budget ~/device/ledger.sqlite
"""
app = typer.Typer(no_args_is_help=True, help=help_text(_GROUP))


class Unit(StrEnum):
    """Whom epsilon protects."""

    RECORD = "record"
    CLIENT = "client"


def budget(
    ledger: Annotated[Path, typer.Argument(metavar="LEDGER")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Also check every page of the file for damage.")
    ] = False,
    delta: Annotated[
        float, typer.Option(metavar="D", help="The delta at which epsilon is given.")
    ] = 1e-4,
    unit: Annotated[
        Unit, typer.Option(help="Whom epsilon protects: a record or the whole client.")
    ] = Unit.RECORD,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Show what training has cost the records of a ledger, over all runs together.

    LEDGER is the file in which a client records each round before it trains: ledger.sqlite in the
    folder of a device, or a file in the folder ledgers of a simulation's run folder.

    The hash chain is checked each time: a ledger that was altered or shortened is an error with
    exit code 1. Epsilon is computed from the recorded events, by privacy loss distributions (PLD)
    and by Rényi DP (RDP).

    [bold]Examples[/bold]
    calyx client budget runs/first/ledgers/client-0000.sqlite
    calyx client budget ~/device/ledger.sqlite --verify --delta 1e-5
    calyx client budget ~/device/ledger.sqlite --unit client --json
    """
    from calyx.cli.terminal.console import terminal

    if not 0 < delta < 1:
        raise typer.BadParameter(
            f"{promise_text(delta)} is not between 0 and 1", param_hint="'--delta'"
        )
    with terminal(as_json=as_json, verbose=verbose) as screen:
        with screen.busy("reading the ledger"), _opened(ledger) as opened:
            if verify:
                opened.verify()
            found = _account(opened, delta, unit.value)
        found = {"ledger": str(ledger), **found, "file_verified": verify}
        _show(screen, found)
        screen.emit(found)


for command in (enroll, join, status, stop, budget):
    app.command(help=help_text(command))(command)


def _opened(path: Path) -> Ledger:
    """A ledger of a run folder may belong to someone else; any other is this device's own."""
    from calyx.client.ledger.ledger import Ledger

    run_dir = path.absolute().parent.parent
    if path.absolute().parent.name == "ledgers" and (run_dir / "config.toml").exists():
        if not path.exists():
            raise LedgerError(f"there is no ledger at {path}", hint="check the path")
        return Ledger.inspect(path.absolute(), run_dir)
    return Ledger.read_only(path)


def _account(ledger: Ledger, delta: float, unit: Any) -> dict[str, Any]:
    entries = ledger.entries()
    total, by_run = ledger.spent(delta, unit), ledger.spent_by_run(delta, unit)
    unprotected = any(entry.event.mechanism == "none" for entry in entries)
    guarantee = f"({epsilon_text(total.epsilon)}, {delta_text(delta)})-DP for each {unit}"
    if math.isinf(total.epsilon):
        guarantee = NO_PRIVACY if unprotected else f"{NO_PRIVACY} for a whole client"
    return {
        "guarantee": guarantee,
        "unit": unit,
        "delta": delta,
        "epsilon": total.epsilon,
        "epsilon_pld": total.pld,
        "epsilon_rdp": total.rdp,
        "epsilon_replaced": ledger.spent(delta, "replaced client").epsilon
        if unit == "client"
        else None,
        "entries": len(entries),
        "last_entry": entries[-1].recorded_at if entries else None,
        "runs": [
            {
                "run": run,
                **_rounds([entry for entry in entries if entry.run == run]),
                "epsilon_pld": cost.pld,
                "epsilon_rdp": cost.rdp,
            }
            for run, cost in by_run.items()
        ],
        "chain_ok": True,
        "head_hash": ledger.head_hash,
        "data_fingerprint": ledger.data_fingerprint,
    }


def _rounds(entries: list[Entry]) -> dict[str, int]:
    numbers = [entry.round for entry in entries]
    return {"entries": len(numbers), "first_round": min(numbers), "last_round": max(numbers)}


def _show(screen: Terminal, found: dict[str, Any]) -> None:
    from rich.text import Text

    from calyx.cli.terminal.console import facts, plain, table

    total = found["epsilon"]
    cost = Text.assemble(
        (f"ε = {epsilon_text(total)}", "bold"),
        f" at δ = {delta_text(found['delta'])} for each {found['unit']}",
    )
    if math.isinf(total):
        cost = Text(f"{found['guarantee']} (ε = ∞)", style="bold")
    pld, rdp = bound_text(found["epsilon_pld"], total), bound_text(found["epsilon_rdp"], total)
    last = f", the last at {found['last_entry']}" if found["last_entry"] else ""
    checked = "file and chain ok" if found["file_verified"] else "chain ok"
    rows: dict[str, str | Text] = {
        "spent": cost,
        "by accountant": f"PLD {pld}, RDP {rdp}",
    }
    if (replaced := found["epsilon_replaced"]) is not None and math.isfinite(total):
        # An epsilon for a client that is left out is not the one for a client of other data.
        rows["if its data are replaced"] = (
            f"ε = {epsilon_text(replaced)}, one record or all of them"
        )
    rows |= {
        "rounds": f"{count_text(found['entries'], 'round')} charged{last}",
        "check": checked,
        "last hash": found["head_hash"],
    }
    screen.show(facts(rows))
    if not found["runs"]:
        return
    numbers = ("charged", "rounds", "ε (PLD)", "ε (RDP)")
    by_run = table("run", *numbers, right=numbers)
    for run in found["runs"]:
        by_run.add_row(
            plain(run["run"]),
            f"{run['entries']:,}",
            f"{run['first_round']}-{run['last_round']}",
            bound_text(run["epsilon_pld"], total),
            bound_text(run["epsilon_rdp"], total),
        )
    screen.line()
    screen.show(by_run)
