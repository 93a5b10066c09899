"""Opening a sealed run at the key authority, and letting every client check that it is open.

A client that was away is offered the run's public key when it is there again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from server.exchange import exchange
from server.rounds import Note
from server.sealed import SealedRun
from shared.protocol.refusals import read_failure
from shared.protocol.sealing import SealingOffer


class Offers:
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
    ) -> tuple[list[str], list[Note]]:
        """Make the offer to those who have not accepted it yet.

        Returns:
            Those of `clients` that can seal now, and who refused for good and why. Who does not
            answer is in neither, and is asked again the next time.
        """
        sealed, refused = self._sealed, []
        messages, asked = [], {}
        for client in clients:
            admission = sealed.opening.admissions.get(client)
            if client in self._accepted or admission is None:
                continue
            offer = SealingOffer(
                sealed.run, sealed.parameters, sealed.opening.public_context, admission
            )
            node = node_ids[client]
            asked[node] = client
            messages.append(Message(offer.to_content(), node, f"{MessageType.QUERY}.sealing"))
        timeout_s = sealed.config.federation.round_timeout_s
        for reply in exchange(self._grid, messages, timeout_s) if messages else ():
            answering = asked.get(reply.metadata.src_node_id)
            if answering is None:
                continue  # Flower's own answer for a node that is gone
            if reply.has_error():
                refused.append(Note(answering, read_failure(reply).reason))
            else:
                self._accepted.add(answering)
        return [client for client in clients if client in self._accepted], refused
