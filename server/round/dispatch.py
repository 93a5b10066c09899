"""One round's instructions to the clients, and their replies examined as they come."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from calyx.server.aggregation.collection import Collection
from calyx.server.exchange import exchange
from calyx.server.roster import ClientOutcome, Roster, RoundRecord
from calyx.server.round.plans import Plans
from calyx.shared.errors import EncryptionError, ProtocolError
from calyx.shared.protocol.arrays import Weights, to_record
from calyx.shared.protocol.messages import ARRAYS, INSTRUCTION, TrainInstruction
from calyx.shared.protocol.refusals import read_failure


class Dispatcher:
    """Asks clients for updates.

    Args:
        grid: Flower's way to the clients.
        run: identifier of the run, for the clients' ledgers.
        timeout_s: how long a round may take.
        proximal_mu: FedProx weight, 0 for none.
    """

    def __init__(self, grid: Grid, run: str, timeout_s: float, proximal_mu: float) -> None:
        self._grid, self._run = grid, run
        self._timeout_s, self._proximal_mu = timeout_s, proximal_mu

    def ask(
        self,
        record: RoundRecord,
        weights: Weights,
        roster: Roster,
        plans: Plans,
        node_ids: Mapping[str, int],
        collection: Collection,
        on_reply: Callable[[int], None],
    ) -> list[str]:
        """Ask the clients in `record` that have not answered, and fill it until the deadline.

        Args:
            record: of the round.
            weights: the global model.
            roster: for the clients' counts.
            plans: for their plans.
            node_ids: Flower's node of each client that can be asked.
            collection: takes the good replies.
            on_reply: called with the number of clients that have answered, each time one has.

        Returns:
            Those that did not answer.
        """
        clients = {node_ids[client]: client for client in record.silent if client in node_ids}
        arrays = to_record(weights)
        messages = []
        for node, client in clients.items():
            plan = plans.of(roster[client])
            instruction = TrainInstruction(self._run, record.round, plan, self._proximal_mu)
            content = RecordDict({ARRAYS: arrays, INSTRUCTION: instruction.to_record()})
            messages.append(Message(content, node, MessageType.TRAIN, group_id=str(record.round)))
        for reply in exchange(self._grid, messages, self._timeout_s):
            # Flower itself answers, as another node, for clients that have gone.
            client = clients.get(reply.metadata.src_node_id, "")
            if client in record.silent:
                _receive(reply, client, roster, record, collection)
                on_reply(len(record.asked) - len(record.silent))
        return record.close()


def _receive(
    reply: Message, client: str, roster: Roster, record: RoundRecord, collection: Collection
) -> None:
    if reply.has_error():
        failure = read_failure(reply)
        outcome = ClientOutcome(client, failure.reason)
        (record.declined if failure.kind.is_final else record.failed).append(outcome)
        return
    try:
        collection.add(client, roster[client], reply)
    except (ProtocolError, EncryptionError) as error:
        record.rejected.append(ClientOutcome(client, error.full_text))
        return
    record.ok.append(client)
