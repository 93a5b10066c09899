"""``calyx client``: what the owner of a device can do."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="For the owner of a device: what was spent on it.")


@app.callback()
def client() -> None:
    """For the owner of a device."""
