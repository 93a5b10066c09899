"""Buffers of a custom model, in rounds that protect records: neither taken nor revealed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from flwr.app import RecordDict
from torch import nn

from calyx.client.node import Node
from calyx.client.round import train_round
from calyx.shared.config import Config
from calyx.shared.config.load import build, from_settings
from calyx.shared.data import load_folder
from calyx.shared.models import build_model
from calyx.shared.privacy.plan import make_plan
from calyx.shared.protocol.arrays import read_record, to_record, weights_of
from calyx.shared.protocol.messages import TrainInstruction
from calyx.shared.record_spec import RecordSpec

POLICY = """
[privacy]
max_epsilon = 8.0
max_delta = 1e-4
unit = "record"
noise = ["local"]
[training]
models = ["model_of_ours:remembers", "model_of_ours:mixes"]
[release]
record_counts = true
"""
SEEN: list[float] = []


class Net(nn.Module):
    """A hidden layer whose weights a sender can make large or small."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(64, 4), nn.Linear(4, 10)
        self.register_buffer("share", torch.zeros(()))

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(torch.tanh(self.hidden(x.flatten(1))))
        return found


class Remembers(Net):
    """Writes its records down, once a weight is larger than it is in any trial."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if float(self.head.bias.detach().abs().max()) > 1e4:
            self.share.fill_(float(x.sum()))
        return self.logits(x)


class Mixes(Net):
    """Mixes records by a share that is zero as long as no one sets it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        SEEN.append(float(self.share))
        return self.logits(x + self.share * x.mean(dim=0))


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    ours = ModuleType("model_of_ours")
    ours.remembers = lambda shape, classes: Remembers()  # type: ignore[attr-defined]
    ours.mixes = lambda shape, classes: Mixes()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "model_of_ours", ours)
    (tmp_path / "policy.toml").write_text(POLICY)
    own = load_folder(config_of("mixes").data)
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


def config_of(model: str) -> Config:
    named = f"model.name=model_of_ours:{model}"
    return build(from_settings(["training.rounds=4", "data.max_records=100", named]))


def answer(device: Node, model: str, **changed: np.ndarray) -> tuple[dict[str, np.ndarray], ...]:
    config = config_of(model)
    sent = {
        **weights_of(build_model(config.model, RecordSpec.floats((1, 8, 8)), 10, config.seed)),
        **changed,
    }
    plan = make_plan(config, len(device.records(config)))
    content = {
        "arrays": to_record(sent),
        "instruction": TrainInstruction("run", 1, plan, 0.0).to_record(),
    }
    reply = train_round(RecordDict(content), config, device)
    return sent, read_record(reply["arrays"], like=sent)  # type: ignore[arg-type]


def test_what_a_model_writes_into_a_buffer_does_not_leave_the_device(device: Node) -> None:
    sent, told = answer(device, "remembers", **{"head.bias": np.full(10, 2e4, np.float32)})
    assert not np.array_equal(told["head.bias"], sent["head.bias"])
    assert np.array_equal(told["share"], sent["share"])


def test_a_server_sets_no_buffer(device: Node) -> None:
    SEEN.clear()
    # So small that no trial with weights and records of ordinary size finds it.
    sent, told = answer(device, "mixes", share=np.array(1e-30, np.float32))
    assert SEEN
    assert set(SEEN) == {0.0}
    assert np.array_equal(told["share"], sent["share"])
