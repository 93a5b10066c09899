"""One federation on this machine, as an engine carries it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from calyx.shared.protocol.authority.interface import Authority
from calyx.simulations.engines.grid import FIRST_CLIENT_NODE_ID, Settings, Tap


@dataclass(frozen=True)
class Simulation:
    """What an engine runs.

    Attributes:
        run_config: the configuration, flat, as every party gets it.
        server: the server machine's own settings.
        clients: each client's own settings, by partition number.
        authority: the key authority of a sealed run; None for the others.
        tap: sees the messages at the server's boundary; local engine only.
    """

    run_config: Settings
    server: Settings
    clients: Mapping[int, Settings]
    authority: Authority | None = None
    tap: Tap | None = None

    def nodes(self) -> dict[int, Settings]:
        """Client settings by Flower node id."""
        return {FIRST_CLIENT_NODE_ID + number: s for number, s in self.clients.items()}
