"""``calyx presets``: what can be run without writing a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calyx.cli.arguments.options import AsJson, Verbose
from calyx.cli.terminal.formatting import NO_PRIVACY
from calyx.shared.privacy.epsilon_text import promise_text


def presets(as_json: AsJson = False, verbose: Verbose = False) -> None:
    """List the presets: whole runs that come with Calyx, each value with its reason.

    The name of a preset can be given to calyx simulate, calyx plan and calyx server run; any of
    its settings can be changed with --set. Presets whose data are files of your own need
    --data-dir.

    [bold]Examples[/bold]
    calyx presets
    calyx presets --json
    calyx simulate digits-cnn --set federation.clients=20
    """
    from rich.text import Text

    from calyx.cli.terminal.console import facts, terminal

    with terminal(as_json=as_json, verbose=verbose) as screen:
        rows = _rows()
        shown = facts({})
        for row in rows:
            shown.add_row(Text(row["name"], style="not dim bold"), row["description"])
            shown.add_row("", Text(_details(row), style="dim"))
        screen.show(shown)
        screen.emit({"presets": rows})


def _rows() -> list[dict[str, Any]]:
    from calyx.shared.config.rules import NEEDS_DIRECTORY
    from calyx.simulations.presets import describe, load_preset, preset_names, resolve

    rows = []
    for name in preset_names():
        source = load_preset(name).get("data", {}).get("source")
        needs_folder = source in NEEDS_DIRECTORY
        # Nothing is read from them; they stand in for the folder and the column of the user's own.
        column = {"data.label": "label"} if source == "table" else {}
        config = resolve(name, column, data_dir=Path() if needs_folder else None)
        rows.append(
            {
                "name": name,
                "description": describe(name),
                "model": config.model.name,
                "data": config.data.hub_name or config.data.source,
                "partition": config.data.partition,
                "clients": config.federation.clients,
                "rounds": config.training.rounds,
                "unit": config.privacy.unit,
                "noise": config.privacy.noise,
                "epsilon": config.privacy.epsilon if config.is_private else None,
                "needs_data_dir": needs_folder,
            }
        )
    return rows


def _details(row: dict[str, Any]) -> str:
    if row["epsilon"] is None:
        privacy = NO_PRIVACY
    else:
        privacy = f"{row['noise']} noise, ε = {promise_text(row['epsilon'])} for each {row['unit']}"
    return f"{row['model']}, {row['data']} ({row['partition']}), {privacy}"
