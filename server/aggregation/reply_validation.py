"""Is this reply fit to be averaged? The gate every update passes before a strategy sees it.

Flower itself accepts NaN into the model and lets one client with odd shapes end the run. Here a
bad reply is refused with a reason, and only its sender bears the cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from calyx.shared.errors import ProtocolError
from calyx.shared.protocol.arrays import NDArray, Weights, read_record, to_record
from calyx.shared.protocol.messages import ARRAYS, METRICS, WEIGHT_KEY, read_arrays, read_metrics


@dataclass(frozen=True)
class Update:
    """A reply that passed: new weights, the public weight of its vote, open metrics."""

    client: str
    weights: Weights
    records: int
    metrics: dict[str, float]

    def to_content(self) -> RecordDict:
        """In the form Flower's strategies aggregate: one array and one metric record."""
        arrays: ArrayRecord = to_record(self.weights)
        metrics = MetricRecord({WEIGHT_KEY: self.records, **self.metrics})
        return RecordDict({ARRAYS: arrays, METRICS: metrics})


def examine(
    reply: Message,
    *,
    client: str,
    reference: Mapping[str, NDArray],
    declared_records: int,
    max_update_norm: float,
) -> Update:
    """Check one reply against the global model it was trained from.

    Args:
        reply: a reply that carries no error.
        client: its sender.
        reference: the weights the client was given.
        declared_records: the count it declared; the reply must state the same.
        max_update_norm: largest L2 norm of the difference to `reference`.

    Raises:
        ProtocolError: with the first thing that is wrong.
    """
    weights = read_record(read_arrays(reply.content), like=reference)
    metrics = read_metrics(reply.content)
    stated = metrics.pop(WEIGHT_KEY, None)
    if stated != declared_records:
        raise ProtocolError(
            f"the reply states {stated} records; the client declared {declared_records}"
        )
    if unknown := sorted(set(metrics) - {"train-loss"}):
        raise ProtocolError(f"metric {unknown[0]!r} was not requested")
    norm = update_norm(weights, reference)
    if not norm <= max_update_norm:
        raise ProtocolError(f"the update's norm is {norm:.4g}; the limit is {max_update_norm:g}")
    return Update(client, weights, declared_records, metrics)


def examine_unprotected(
    reply: Message, *, reference: Mapping[str, NDArray], declared_records: int
) -> Weights:
    """Check a reply whose values are private and not noised yet, without regard to the values.

    Only what the client's code decides is checked: names, shapes, types, the declared count. No
    norm, no NaN, no metric: anyone who sees the run sees a refusal, which would tell something
    about the client's records that no noise covers.

    Args:
        reply: a reply that carries no error.
        reference: the weights the client was given.
        declared_records: the count it declared; the reply must state the same.

    Returns:
        The new weights, which may hold NaN and infinity.

    Raises:
        ProtocolError: with the first thing that is wrong.
    """
    weights = read_record(read_arrays(reply.content), like=reference, must_be_finite=False)
    stated = reply.content.metric_records.get(METRICS, MetricRecord()).get(WEIGHT_KEY)
    if stated != declared_records:
        raise ProtocolError(f"the reply does not state the {declared_records} records declared")
    return weights


def update_norm(weights: Mapping[str, NDArray], reference: Mapping[str, NDArray]) -> float:
    """L2 norm of the whole update, in float64 so that large values cannot overflow."""
    total = 0.0
    for name, old in reference.items():
        difference = weights[name].astype(np.float64) - old.astype(np.float64)
        total += float(np.square(difference).sum())
    return math.sqrt(total) if math.isfinite(total) else math.inf
