"""Opening a sealed run at the key authority, and letting every client check that it is open.

A client that was away is offered the run's public key when it is back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flwr.app import MessageType
from flwr.serverapp import Grid

from calyx.server.aggregation.sealed import SealedRun
from calyx.server.exchange import ask_clients
from calyx.server.roster import ClientOutcome
from calyx.shared.protocol.sealed.messages import SealingOffer


class KeyOffers:
    """Which clients have accepted the public key of a run, each with its own admission.

    Args:
        sealed: the open run.
        grid: Flower's way to the clients.
    """

    def __init__(self, sealed: SealedRun, grid: Grid) -> None:
        self._sealed, self._grid = sealed, grid
        self._accepted: set[str] = set()

    def make(
        self, clients: Sequence[str], node_ids: Mapping[str, int]
    ) -> tuple[list[str], list[ClientOutcome]]:
        """Make the offer to those that have not accepted it yet.

        Returns:
            Those of `clients` that can seal now, and those that refused for good with the reason.
            A client that does not answer is in neither, and is asked again the next time.
        """
        sealed, offers = self._sealed, {}
        for client in clients:
            admission = sealed.opening.admissions.get(client)
            if client in self._accepted or admission is None:
                continue
            offers[client] = SealingOffer(
                sealed.run, sealed.parameters, sealed.opening.public_context, admission
            ).to_content()
        kind, timeout_s = f"{MessageType.QUERY}.sealing", sealed.config.federation.round_timeout_s
        accepted, refused = ask_clients(self._grid, offers, node_ids, kind, timeout_s)
        self._accepted |= accepted
        return [client for client in clients if client in self._accepted], refused
