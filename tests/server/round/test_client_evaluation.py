"""What the server makes of figures that clients say they measured."""

from __future__ import annotations

import pytest
from flwr.app import Message, MetricRecord, RecordDict

from calyx.server.roster import RoundRecord
from calyx.server.round import client_evaluation
from calyx.server.round.client_evaluation import evaluate_on_clients
from calyx.shared.protocol.messages import METRICS
from calyx.shared.target import Classes
from calyx.shared.tasks.classification import classification

TASK = classification(Classes(3))
HONEST = {"num-examples": 10, "loss": 1.0, "accuracy": 0.5}


def told(monkeypatch: pytest.MonkeyPatch, *replies: dict[str, float]) -> dict[str, float]:
    """The means of these replies."""
    asked = Message(RecordDict(), dst_node_id=1, message_type="evaluate")
    messages = [
        Message(RecordDict({METRICS: MetricRecord(dict(reply))}), reply_to=asked)
        for reply in replies
    ]
    monkeypatch.setattr(client_evaluation, "exchange", lambda *_: messages)
    return evaluate_on_clients(None, {}, RoundRecord(1, []), {}, TASK, 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "lie", [{"loss": 1.7e308}, {"loss": -1.7e308}, {"accuracy": 7.0}, {"accuracy": -1e-3}]
)
def test_figures_that_cannot_be_are_left_out(
    monkeypatch: pytest.MonkeyPatch, lie: dict[str, float]
) -> None:
    """One client could make a mean of all infinite, and a share larger than one."""
    means = told(monkeypatch, HONEST, {**HONEST, "num-examples": 10**9, **lie})
    assert means == told(monkeypatch, HONEST)
    assert means == {"client-loss": 1.0, "client-accuracy": 0.5, "client-accuracy-worst": 0.5}
