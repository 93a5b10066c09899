"""Asking each client whether it would take part in the whole run, before any client is charged.

Without it a client whose budget ends half-way, or a model that cannot be trained privately, shows
up in a round that the others have paid for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flwr.app import MessageType
from flwr.serverapp import Grid

from calyx.server.exchange import ask_clients
from calyx.server.roster import ClientOutcome, Roster
from calyx.server.round.plans import Plans
from calyx.shared.protocol.messages import Proposal


class Preflight:
    """Which clients have said that they would take part in the whole run.

    Args:
        grid: Flower's way to the clients.
        run: identifier of the run.
        plans: what each is told to do.
        timeout_s: how long to wait for the answers.
    """

    def __init__(self, grid: Grid, run: str, plans: Plans, timeout_s: float) -> None:
        self._grid, self._run, self._plans, self._timeout_s = grid, run, plans, timeout_s
        self._willing: set[str] = set()

    def ask(
        self, clients: Sequence[str], node_ids: Mapping[str, int], roster: Roster, rounds_left: int
    ) -> tuple[list[str], list[ClientOutcome]]:
        """Ask those that have not said yes yet.

        Returns:
            Those of `clients` that would take part, and those that would not with the reason. A
            client that does not answer is in neither, and is asked again the next time.
        """
        proposals = {
            client: Proposal(self._run, self._plans.of(roster[client]), rounds_left).to_content()
            for client in clients
            if client not in self._willing
        }
        kind = f"{MessageType.QUERY}.proposal"
        willing, refused = ask_clients(self._grid, proposals, node_ids, kind, self._timeout_s)
        self._willing |= willing
        return [client for client in clients if client in self._willing], refused
