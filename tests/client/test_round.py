"""What a client refuses before anything is charged, computed or sent."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict
from torch import nn

from calyx.client import evaluation
from calyx.client.evaluation import evaluate_round
from calyx.client.node import Node
from calyx.client.round import train_round
from calyx.shared.config import Config
from calyx.shared.config.load import build, from_settings
from calyx.shared.data import load_folder
from calyx.shared.errors import (
    BudgetExceeded,
    CalyxError,
    DataError,
    LedgerError,
    PolicyViolation,
    ProtocolError,
)
from calyx.shared.models import build_model
from calyx.shared.privacy.plan import PrivacyPlan, SumShape, make_plan
from calyx.shared.protocol.arrays import read_record, to_record, weights_of
from calyx.shared.protocol.messages import TrainInstruction
from calyx.shared.protocol.refusals import error_reply
from calyx.shared.record_spec import RecordSpec
from calyx.shared.target import Classes
from calyx.shared.tasks import Task

POLICY = """
[privacy]
max_epsilon = 8.0
max_delta = 1e-4
unit = "any"
noise = ["local", "distributed", "central"]
[release]
record_counts = true
"""


@pytest.fixture
def device(tmp_path: Path) -> Node:
    """A real device: system noise, a policy, a ledger."""
    (tmp_path / "policy.toml").write_text(POLICY)
    own = load_folder(config_of().data)
    np.savez(tmp_path / "own.npz", x=own.features[:, 0], y=own.labels)
    return Node.from_settings(
        {
            "client-name": "device",
            "data-source": "npz",
            "data-directory": str(tmp_path / "own.npz"),
            "ledger": str(tmp_path / "ledger.sqlite"),
            "policy": str(tmp_path / "policy.toml"),
        }
    )


def config_of(*settings: str) -> Config:
    return build(from_settings(["training.rounds=4", *settings]))


def order(config: Config, plan: PrivacyPlan, **weights: Any) -> RecordDict:
    model = build_model(config.model, RecordSpec.floats((1, 8, 8), Classes(10)), config.seed)
    arrays = to_record({**weights_of(model), **weights})
    instruction = TrainInstruction("run", 1, plan, 0.0).to_record()
    return RecordDict({"arrays": arrays, "instruction": instruction})


def records() -> int:
    return len(load_folder(config_of().data))


def test_device_trains_within_its_policy_and_writes_its_ledger(device: Node) -> None:
    config = config_of()
    content = order(config, make_plan(config, records()))
    reply = train_round(content, config, device)
    model = weights_of(
        build_model(config.model, RecordSpec.floats((1, 8, 8), Classes(10)), config.seed)
    )
    sent = read_record(reply["arrays"], like=model)  # type: ignore[arg-type]
    assert any(not np.array_equal(sent[name], model[name]) for name in model)
    with device.ledger(device.records(config)) as ledger:
        (entry,) = ledger.entries()
    assert entry.event == make_plan(config, records()).round_event


def test_device_noise_cannot_be_repeated_and_each_round_is_charged(device: Node) -> None:
    config = config_of()
    content = order(config, make_plan(config, records()))
    one, two = (train_round(content, config, device)["arrays"] for _ in range(2))
    assert any(one[name].data != two[name].data for name in one)  # type: ignore[union-attr,index]
    with device.ledger(device.records(config)) as ledger:
        assert len(ledger.entries()) == 2


def test_budget_ends_the_training_before_it_is_exceeded(device: Node) -> None:
    config = config_of()
    content = order(config, make_plan(config, records()))
    for _ in range(4):
        train_round(content, config, device)
    with pytest.raises(BudgetExceeded):
        train_round(content, config, device)
    with device.ledger(device.records(config)) as ledger:
        assert len(ledger.entries()) == 4


def disguised(plan: PrivacyPlan, **changes: Any) -> PrivacyPlan:
    return dataclasses.replace(plan, **changes)


REFUSED: dict[str, tuple[tuple[str, ...], dict[str, Any], type[CalyxError], str]] = {
    "no noise": (("privacy.noise=none",), {}, PolicyViolation, "noise"),
    "more epsilon": (("privacy.epsilon=9",), {}, PolicyViolation, "epsilon"),
    "less noise than promised": ((), {"noise_multiplier": 0.3}, PolicyViolation, "epsilon"),
    "plan for other data": ((), {"declared_records": 5}, PolicyViolation, "the plan says"),
    "sealing it cannot do": (
        ("secure_aggregation.scheme=bfv",),
        {},
        PolicyViolation,
        "not enrolled at a key authority",
    ),
    "code of the server's choice": (
        ("model.name=platform:platform",),
        {},
        PolicyViolation,
        "model",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_without_a_trace(name: str, device: Node) -> None:
    settings, changes, error, reason = REFUSED[name]
    plain = config_of()
    config = config_of(*settings)
    plan = disguised(
        make_plan(config_of(*(s for s in settings if "privacy" in s)), records()), **changes
    )
    with pytest.raises(error, match=reason):
        train_round(order(plain, plan), config, device)
    assert not Path(device.ledger_path).exists() or not _entries(device, plain)


def _entries(device: Node, config: Config) -> int:
    with device.ledger(device.records(config)) as ledger:
        return len(ledger.entries())


@pytest.mark.parametrize("noise", ["central", "distributed"])
def test_a_bare_update_leaves_only_where_the_owner_trusts_the_server(
    noise: str, device: Node
) -> None:
    """Noise that others add protects no one from a recipient of the update without it."""
    Path(device.policy_path).write_text(POLICY.replace(', "distributed", "central"', ""))
    sealed = ("secure_aggregation.scheme=bfv",) if noise == "distributed" else ()
    config = config_of("privacy.unit=client", f"privacy.noise={noise}", *sealed)
    shape = SumShape(53_002, 10_000) if noise == "distributed" else None
    plan = make_plan(config, records(), shape)
    with pytest.raises(PolicyViolation, match=f"privacy.noise = {noise}"):
        train_round(order(config, plan), config, device)
    assert not Path(device.ledger_path).exists() or not _entries(device, config_of())


def test_a_device_without_a_key_authority_seals_nothing_and_is_charged_nothing(
    device: Node,
) -> None:
    config = config_of(
        "privacy.unit=client",
        "privacy.epsilon=3",
        "privacy.noise=distributed",
        "secure_aggregation.scheme=bfv",
    )
    content = order(config, make_plan(config, records(), SumShape(53_002, 10_000)))
    with pytest.raises(PolicyViolation, match="not enrolled at a key authority"):
        train_round(content, config, device)
    assert not Path(device.ledger_path).exists() or not _entries(device, config_of())


@pytest.mark.parametrize(("value", "words"), [(np.nan, "NaN"), (2e6, "no training leads to")])
def test_broken_model_is_refused_before_it_costs_anything(
    device: Node, value: float, words: str
) -> None:
    config = config_of()
    plan = make_plan(config, records())
    model = weights_of(
        build_model(config.model, RecordSpec.floats((1, 8, 8), Classes(10)), config.seed)
    )
    name = next(iter(model))
    content = order(config, plan, **{name: np.full_like(model[name], value)})
    with pytest.raises(ProtocolError, match=words):
        train_round(content, config, device)
    assert not Path(device.ledger_path).exists() or not _entries(device, config)


def test_evaluation_lets_no_metrics_leave_and_runs_no_foreign_code(device: Node) -> None:
    config = config_of("privacy.noise=none")
    with pytest.raises(PolicyViolation, match="exact metrics"):
        evaluate_round(order(config, make_plan(config, records())), config, device)
    Path(device.policy_path).write_text(POLICY + "metrics = true\n")
    foreign = config_of("privacy.noise=none", "model.name=platform:platform")
    with pytest.raises(PolicyViolation, match=r"model\.name"):
        evaluate_round(order(config, make_plan(config, records())), foreign, device)


def test_labels_that_a_failing_metric_quotes_do_not_leave(
    device: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quoting(outputs: torch.Tensor, labels: torch.Tensor) -> float:
        raise ValueError(f"not for {labels.tolist()}")

    task = Task(nn.CrossEntropyLoss(reduction="none"), {"mine": quoting})
    monkeypatch.setattr(evaluation, "task_of", lambda *_: task)
    Path(device.policy_path).write_text(POLICY + "metrics = true\n")
    config = config_of("privacy.noise=none")
    content = order(config, make_plan(config, records()))
    with pytest.raises(DataError, match="metric mine failed") as failed:
        evaluate_round(content, config, device)
    asked = Message(content, dst_node_id=1, message_type="evaluate")
    assert "mine" not in error_reply(failed.value, asked).error.reason


def test_a_real_device_needs_ledger_and_policy() -> None:
    with pytest.raises(LedgerError, match="no ledger"):
        Node.from_settings({"policy": "p"})
    with pytest.raises(PolicyViolation, match="no policy"):
        Node.from_settings({"ledger": "l"})


def test_a_server_cannot_name_the_records(device: Node) -> None:
    """A device has its own data set, not the one that the run names; without any it says so."""
    foreign = config_of("data.source=hub", "data.hub_name=/etc", "data.max_records=3")
    assert device.records(foreign).fingerprint == device.records(config_of()).fingerprint
    with pytest.raises(DataError, match="name them with the node settings"):
        Node.from_settings({"ledger": "l", "policy": "p"}).records(foreign)


def test_a_server_cannot_turn_a_device_into_a_simulation() -> None:
    """Only the device's own settings decide; the run config is not even read."""
    node = Node.from_settings({"ledger": "l", "policy": "p", "partition-file": "x"})
    assert not node.is_simulated and node.partition_file == ""
    assert node.noise("digest").kind == "system"


@pytest.mark.parametrize("setting", ["batch-log", "canaries"])
def test_a_real_device_takes_part_in_no_audit(setting: str) -> None:
    """A list of which record was in which batch, or an auditor's record, has no place there."""
    settings = {"ledger": "l", "policy": "p", setting: "file"}
    with pytest.raises(PolicyViolation, match=f"no audit.*{setting}"):
        Node.from_settings(settings)
    assert Node.from_settings({**settings, "simulation-seed": 0}).is_simulated
