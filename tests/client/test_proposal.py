"""A device says beforehand whether it would take part in a whole run, and is charged nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from calyx.client.ledger.ledger import Budget
from calyx.client.node import Node
from calyx.client.proposal import consider
from calyx.shared.config import Config
from calyx.shared.config.load import build, from_settings
from calyx.shared.data import load_folder
from calyx.shared.errors import (
    BudgetExceeded,
    DataError,
    LedgerError,
    ModelError,
    PolicyViolation,
    PrivacyError,
    ProtocolError,
)
from calyx.shared.models import build_model
from calyx.shared.models.vector import dimension
from calyx.shared.privacy.plan import PrivacyPlan, make_plan
from calyx.shared.protocol.messages import Proposal
from calyx.shared.protocol.sealed.messages import sum_shape
from calyx.shared.record_spec import RecordSpec

LOCAL = (
    "training.rounds=4",
    "federation.clients=3",
    "privacy.noise=local",
    "privacy.epsilon=4",
    "data.max_records=100",
)
SEALED = (
    "training.rounds=4",
    "federation.clients=3",
    "privacy.noise=distributed",
    "privacy.sampling=full",
    "privacy.epsilon=4",
    "secure_aggregation.scheme=bfv",
    "secure_aggregation.min_contributors=3",
    "data.max_records=100",
)
POLICY = """
[privacy]
max_epsilon = 4.0
max_delta = 1e-4
unit = "any"
noise = ["distributed", "local"]

[training]
models = ["*"]

[release]
record_counts = true
"""


class Device:
    """A real device with 60 records, and the proposals of a server."""

    def __init__(self, folder: Path, settings: tuple[str, ...]) -> None:
        self.folder = folder
        self.config: Config = build(from_settings(settings))
        self.policy = folder / "policy.toml"
        self.policy.write_text(POLICY)
        own = load_folder(self.config.data).subset(np.arange(60))
        np.savez(folder / "own.npz", x=own.features[:, 0], y=own.labels, classes=np.int64(10))
        self.settings: dict[str, str | int | float | bool] = {
            "client-name": "device",
            "data-source": "npz",
            "data-directory": str(folder / "own.npz"),
            "ledger": str(folder / "ledger.sqlite"),
            "policy": str(self.policy),
            "identity": str(folder / "device.key"),
            "authority-key": "0" * 64,
        }
        self.plan: PrivacyPlan = self.made_for(60)

    def made_for(self, records: int) -> PrivacyPlan:
        shape = None
        if self.config.is_sealed:
            size = dimension(build_model(self.config.model, RecordSpec.floats((1, 8, 8)), 10, 0))
            shape = sum_shape(self.config, size)
        return make_plan(self.config, records, shape)

    @property
    def node(self) -> Node:
        return Node.from_settings(self.settings)

    def charge(self, run: str, *rounds: int) -> None:
        with self.node.ledger(self.node.records(self.config)) as ledger:
            for number in rounds:
                ledger.charge(
                    run=run,
                    round=number,
                    instruction="0" * 64,
                    event=self.plan.round_event,
                    budget=Budget(100.0, 1e-4, "record"),
                    repeatable=False,
                )

    def asked(self, rounds_left: int = 4, run: str = "run", plan: PrivacyPlan | None = None) -> int:
        """Number of entries in the ledger after a yes."""
        content = Proposal(run, plan or self.plan, rounds_left).to_content()
        consider(content, self.config, self.node)
        with self.node.ledger(self.node.records(self.config)) as ledger:
            return len(ledger.entries())


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path, LOCAL)


@pytest.fixture
def sealing(tmp_path: Path) -> Device:
    return Device(tmp_path, SEALED)


@pytest.mark.parametrize("settings", [LOCAL, SEALED], ids=["local", "sealed"])
def test_run_that_fits_is_agreed_to_and_nothing_is_charged(
    settings: tuple[str, ...], tmp_path: Path
) -> None:
    device = Device(tmp_path, settings)
    assert device.asked() == 0
    assert device.asked() == 0


def test_all_of_the_run_must_fit_beside_what_was_spent(device: Device) -> None:
    """Its first rounds would fit; without the question it would end in the middle."""
    device.charge("an earlier run", 1)
    with pytest.raises(BudgetExceeded, match=r"4 more rounds of run 'run' would raise the epsilon"):
        device.asked()
    device.policy.write_text(POLICY.replace("4.0", "4.9"))
    assert device.asked() == 1


def test_resumed_run_needs_budget_for_the_rounds_left_only(device: Device) -> None:
    device.charge("run", 1, 2)
    assert device.asked(rounds_left=2) == 2


def test_round_that_was_charged_and_not_finished_is_not_counted_twice(device: Device) -> None:
    """The server was killed in round 3: it is among the remaining rounds, and in the ledger."""
    device.charge("run", 1, 2, 3)
    assert device.asked(rounds_left=2) == 3


def test_client_that_was_asked_in_few_rounds_may_be_asked_in_all_that_are_left(
    device: Device,
) -> None:
    device.charge("run", 1)
    assert device.asked(rounds_left=3) == 1
    with pytest.raises(BudgetExceeded):
        device.asked(rounds_left=4, run="another run")


def test_policy_is_asked(device: Device) -> None:
    device.policy.write_text(POLICY.replace("4.0", "3.0"))
    with pytest.raises(PolicyViolation, match=r"at most 3"):
        device.asked()


def test_plan_for_other_records_is_refused(device: Device) -> None:
    with pytest.raises(PolicyViolation, match="this client declared 60"):
        device.asked(plan=device.made_for(61))


def test_noise_for_another_model_is_refused(sealing: Device) -> None:
    assert sealing.plan.mechanism is not None
    other = replace(sealing.plan, mechanism=replace(sealing.plan.mechanism, dimension=999))
    with pytest.raises(PrivacyError, match="999 values"):
        sealing.asked(plan=other)


def test_device_without_keys_says_so_before_a_sealed_run(sealing: Device) -> None:
    del sealing.settings["identity"]
    with pytest.raises(PolicyViolation, match="not enrolled at a key authority"):
        sealing.asked()


def test_model_that_cannot_be_trained_privately_is_refused(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    (device.folder / "mixing_model.py").write_text(
        "from torch import nn\n"
        "def make(shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, classes))\n"
    )
    monkeypatch.syspath_prepend(str(device.folder))
    device.config = build(from_settings((*LOCAL, "model.name=mixing_model:make")))
    with pytest.raises(ModelError, match="mixes the records of a batch"):
        device.asked()


def test_records_and_ledger_must_be_usable(device: Device) -> None:
    device.asked()
    path = device.folder / "ledger.sqlite"
    content = path.read_bytes()
    path.write_bytes(b"no ledger")
    with pytest.raises(LedgerError):
        device.asked()
    path.write_bytes(content)
    (device.folder / "own.npz").unlink()
    with pytest.raises(DataError):
        device.asked()


BAD: dict[str, RecordDict] = {
    "nothing": RecordDict(),
    "another kind of record": RecordDict({"proposal": MetricRecord({"rounds-left": 1})}),
    "no plan": RecordDict({"proposal": ConfigRecord({"run": "r", "rounds-left": 1})}),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_proposal_is_refused(name: str, device: Device) -> None:
    with pytest.raises(ProtocolError):
        consider(BAD[name], device.config, device.node)


@pytest.mark.parametrize("rounds_left", [0, -1, 5, 2**60])
def test_rounds_left_are_within_the_plan(rounds_left: int, device: Device) -> None:
    with pytest.raises(ProtocolError, match="rounds are left of a plan for 4"):
        device.asked(rounds_left=rounds_left)
