"""The Flower ServerApp: wiring only.

Where to write comes from the settings of the server's own machine (``node_config``), what to do
from the run config.
"""

from __future__ import annotations

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
    settings = RunSettings.read(context.node_config, context.run_id)
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    Federation(grid, from_run_config(context.run_config), settings, authority).run()
