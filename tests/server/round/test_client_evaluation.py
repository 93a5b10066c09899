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
from calyx.shared.tasks.metric import Metric
from calyx.shared.tasks.task import Task

TASK = classification(Classes(3))
HONEST = {"num-examples": 10, "loss": 1.0, "accuracy": 0.5}


def told(
    monkeypatch: pytest.MonkeyPatch, *replies: dict[str, float], task: Task = TASK
) -> dict[str, float]:
    """The means of these replies; each client has declared ten records."""
    messages = []
    for node, reply in enumerate(replies, 1):
        asked = Message(RecordDict(), dst_node_id=node, message_type="evaluate")
        messages.append(Message(RecordDict({METRICS: MetricRecord(dict(reply))}), reply_to=asked))
    monkeypatch.setattr(client_evaluation, "exchange", lambda *_: messages)
    node_ids = {str(node): node for node in range(1, len(replies) + 1)}
    declared = dict.fromkeys(node_ids, 10)
    record = RoundRecord(1, [])
    return evaluate_on_clients(None, {}, record, node_ids, declared, task, 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "lie", [{"loss": 1.7e308}, {"loss": -1.7e308}, {"accuracy": 7.0}, {"accuracy": -1e-3}]
)
def test_figures_that_cannot_be_are_left_out(
    monkeypatch: pytest.MonkeyPatch, lie: dict[str, float]
) -> None:
    """One client could make a mean of all infinite, and a share larger than one."""
    means = told(monkeypatch, HONEST, {**HONEST, **lie})
    assert means == told(monkeypatch, HONEST)
    assert means == {"client-loss": 1.0, "client-accuracy": 0.5, "client-accuracy-worst": 0.5}


@pytest.mark.parametrize("weight", [10**9, 11, 9, 0, -10])
def test_a_client_weighs_what_it_declared(monkeypatch: pytest.MonkeyPatch, weight: int) -> None:
    other = {"num-examples": weight, "loss": 9.0, "accuracy": 1.0}
    assert told(monkeypatch, HONEST, other) == told(monkeypatch, HONEST)


def test_the_worst_tenth_of_the_clients_has_a_mean_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replies = [{**HONEST, "accuracy": number / 20} for number in range(20)]
    means = told(monkeypatch, *replies)
    assert means["client-accuracy"] == pytest.approx(9.5 / 20)
    assert means["client-accuracy-worst"] == pytest.approx((0 + 1 / 20) / 2)


def test_the_worst_of_an_error_is_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    error = Metric("mae", lambda p, t: 0.0, higher_is_better=False)
    task = Task(lambda p, t: p[:, 0], (error,))
    replies = [{"num-examples": 10, "loss": 1.0, "mae": float(number)} for number in range(5)]
    assert told(monkeypatch, *replies, task=task)["client-mae-worst"] == 4.0


def test_a_metric_that_some_clients_cannot_give_is_the_mean_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without = {"num-examples": 10, "loss": 3.0}
    means = told(monkeypatch, HONEST, without)
    assert means["client-loss"] == 2.0
    assert means["client-accuracy"] == 0.5
