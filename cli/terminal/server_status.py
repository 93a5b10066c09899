"""A server of real devices, its devices and its runs, as tables."""

from __future__ import annotations

from typing import Any

from calyx.cli.terminal.console import Terminal, facts, plain, table, whole


def show_status(screen: Terminal, found: dict[str, Any]) -> None:
    """Show what `calyx.server.deployment.launch.status_of` found."""
    state = f"up (process {found['pid']})" if found["running"] else "down"
    screen.show(
        facts(
            {
                "server": state,
                "address": found["address"],
                "key authority": found["authority"] or "none: no sealed runs",
                "certificate": f"valid until {found['certificate_valid_until'][:10]}",
                "CA fingerprint": found["ca_fingerprint"],
            }
        )
    )
    screen.line()
    if not found["devices"]:
        screen.line("no devices yet; approve one with: calyx server approve DIR REQUEST")
    else:
        devices = table("device", "status", "approved", "fingerprint")
        for device in found["devices"]:
            devices.add_row(
                plain(device["name"]),
                device["status"],
                device["approved_at"][:10],
                whole(device["fingerprint"]),
            )
        screen.show(devices)
    if found["runs"]:
        screen.line()
        runs = table("run", "state", "submitted", "")
        for run in found["runs"]:
            runs.add_row(
                plain(run["run"]), run["state"], run["submitted_at"][:19], plain(run["error"])
            )
        screen.show(runs)
