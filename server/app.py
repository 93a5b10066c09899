"""The Flower ServerApp: wiring only.

Where to write comes from the settings of the server's own machine (``node_config``), what to do
from the run config.
"""

from __future__ import annotations

import json
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from calyx.server.federation import Federation
from calyx.server.run_settings import RunSettings
from calyx.shared.config.load import from_run_config
from calyx.shared.protocol.authority.interface import Authority

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Carry out the run described by the run config."""
    serve(grid, context)


def serve(grid: Grid, context: Context, authority: Authority | None = None) -> None:
    """What the app does; simulations call it with a key authority in their own process."""
    local = context.node_config
    run = str(local.get("run", context.run_id))
    settings = RunSettings(
        run=run,
        run_dir=Path(str(local.get("run-dir", Path("runs") / run))),
        engine=str(local.get("engine", "deployment")),
        workers=int(local.get("workers", 0)),
        simulation_seed=int(local["simulation-seed"]) if "simulation-seed" in local else None,
        device_names=_names(str(local["device-names"])) if "device-names" in local else None,
        record_limits=json.loads(str(local["record-limits"])) if "record-limits" in local else None,
    )
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    Federation(grid, from_run_config(context.run_config), settings, authority).run()


def _names(text: str) -> dict[int, str]:
    """Approved names by Flower's node id; settings hold no mappings, so they come as JSON."""
    return {int(node): str(name) for node, name in json.loads(text).items()}
