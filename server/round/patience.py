"""When a run ends early because the model no longer gets better.

Judged by the first metric on the server's own test set, which is public: it costs no privacy, and
what is left of every client's budget stays unspent. But the test figure of such a run favours the
model, since it decided when to stop; a fair one needs records that decided nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from calyx.server.state.journal import Event
from calyx.shared.tasks.metric import Metric


def has_stalled(history: Sequence[Event], metric: Metric, patience: int) -> bool:
    """Whether the last `patience` rounds were all no better than the best before them.

    Args:
        history: events of all rounds, see `calyx.server.round.events.round_event`.
        metric: the headline.
        patience: rounds to wait; 0: for ever.
    """
    if not patience or len(history) <= patience:
        return False
    values = [_rank(event, metric) for event in history]
    return max(values[-patience:]) <= max(values[:-patience])


def _rank(event: Event, metric: Metric) -> float:
    """Higher is better; a figure that is not defined is worst."""
    value = event["metrics"].get(metric.name)
    if value is None:
        return float("-inf")
    return float(value) if metric.higher_is_better else -float(value)
