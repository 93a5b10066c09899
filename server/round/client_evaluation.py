"""The clients' own metrics of the global model, where their owners let them leave."""

from __future__ import annotations

from collections.abc import Mapping

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from calyx.server.exchange import exchange
from calyx.server.roster import RoundRecord
from calyx.shared.errors import ProtocolError
from calyx.shared.protocol.arrays import Weights, to_record
from calyx.shared.protocol.messages import ARRAYS, CONFIG, read_metrics


def evaluate_on_clients(
    grid: Grid,
    weights: Weights,
    record: RoundRecord,
    node_ids: Mapping[str, int],
    timeout_s: float,
) -> dict[str, float]:
    """Record-weighted mean of the clients' own metrics; clients that fail are left out."""
    arrays = to_record(weights)
    messages = [
        Message(
            RecordDict({ARRAYS: arrays, CONFIG: ConfigRecord({"round": record.round})}),
            node_ids[client],
            MessageType.EVALUATE,
            group_id=str(record.round),
        )
        for client in record.ok
        if client in node_ids
    ]
    total, sums = 0.0, {"loss": 0.0, "accuracy": 0.0}
    replies = exchange(grid, messages, timeout_s)
    for reply in sorted(replies, key=lambda r: r.metadata.src_node_id):
        if reply.has_error():
            continue
        try:
            metrics = read_metrics(reply.content)
        except ProtocolError:
            continue
        weight = metrics.get("num-examples", 0.0)
        if set(metrics) != {"num-examples", *sums} or not 0 < weight <= 1e9:
            continue
        total += weight
        for key in sums:
            sums[key] += weight * metrics[key]
    return {f"client-{key}": value / total for key, value in sums.items()} if total else {}
