"""The clients' own metrics of the global model, where their owners let them leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from calyx.server.exchange import exchange
from calyx.server.roster import RoundRecord
from calyx.shared.errors import ProtocolError
from calyx.shared.protocol.arrays import Weights, to_record
from calyx.shared.protocol.messages import ARRAYS, CONFIG, WEIGHT_KEY, read_metrics
from calyx.shared.tasks.task import Task

# "The worst tenth": the mean of a metric alone hides clients that a model does not serve.
_WORST_SHARE = 0.1
# No honest figure is larger, and means of such figures stay finite.
_LARGEST = 1e30


def evaluate_on_clients(
    grid: Grid,
    weights: Weights,
    record: RoundRecord,
    node_ids: Mapping[str, int],
    declared: Mapping[str, int],
    task: Task,
    timeout_s: float,
) -> dict[str, float]:
    """What the clients say about the model on their own records; those that fail are left out.

    So is a reply whose weight is not what its client declared before the run: it could outweigh all
    others.

    Args:
        grid: the clients.
        weights: the model.
        record: of the round; the clients whose updates counted are asked.
        node_ids: of the clients that are there.
        declared: records that each client takes part with.
        task: its metrics.
        timeout_s: how long to wait.

    Returns:
        Record-weighted means, as ``client-loss`` and ``client-accuracy``; and of the headline also
        the mean of the worst tenth of the clients, at least one, as ``client-accuracy-worst``.
    """
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
    known = ["loss", *(metric.name for metric in task.measured)]
    told: dict[str, list[tuple[float, float]]] = {name: [] for name in known}
    limits = dict.fromkeys(known, (-_LARGEST, _LARGEST))
    limits |= {metric.name: (0.0, 1.0) for metric in task.measured if metric.is_share}
    expected = {node_ids[client]: n for client, n in declared.items() if client in node_ids}
    replies = exchange(grid, messages, timeout_s)
    for reply in sorted(replies, key=lambda r: r.metadata.src_node_id):
        if reply.has_error():
            continue
        try:
            metrics = read_metrics(reply.content)
        except ProtocolError:
            continue
        weight = metrics.pop(WEIGHT_KEY, 0.0)
        if weight <= 0 or weight != expected.get(reply.metadata.src_node_id):
            continue
        if "loss" not in metrics or not metrics.keys() <= told.keys():
            continue
        if any(not low <= metrics.get(name, low) <= high for name, (low, high) in limits.items()):
            continue
        for name, value in metrics.items():
            told[name].append((value, weight))
    means = {f"client-{name}": _mean(values) for name, values in told.items() if values}
    if values := told[task.headline.name]:
        worst = sorted((v for v, _ in values), reverse=not task.headline.higher_is_better)
        number = max(1, round(_WORST_SHARE * len(worst)))
        means[f"client-{task.headline.name}-worst"] = sum(worst[:number]) / number
    return means


def _mean(values: Sequence[tuple[float, float]]) -> float:
    return sum(v * weight for v, weight in values) / sum(weight for _, weight in values)
