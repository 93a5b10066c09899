"""What a client sends of parameters that are frozen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, RecordDict

from calyx.client.node import Node
from calyx.client.round import train_round
from calyx.shared.config.load import build, from_settings
from calyx.shared.models import build_model
from calyx.shared.privacy.plan import make_plan
from calyx.shared.protocol.arrays import read_record, to_record, weights_of
from calyx.shared.protocol.messages import TrainInstruction

POLICY = """
[privacy]
max_epsilon = 8.0
max_delta = 1e-4
unit = "any"
noise = ["local", "distributed", "central"]
[release]
record_counts = true
"""


@pytest.mark.parametrize("unit", ["record", "client"])
def test_they_get_no_noise_and_every_other_parameter_does(unit: str, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(POLICY)
    node = Node.from_settings(
        {
            "client-name": "device",
            "data-source": "digits",
            "ledger": str(tmp_path / "ledger.sqlite"),
            "policy": str(tmp_path / "policy.toml"),
        }
    )
    config = build(
        from_settings(
            [
                "training.rounds=4",
                "training.local_steps=1",
                "data.max_records=100",
                "model.freeze=conv1.weight,fc?.bias",
                "secure_aggregation.scheme=none",
                "privacy.noise=local",
                f"privacy.unit={unit}",
            ]
        )
    )
    records = node.records(config)
    model = weights_of(build_model(config.model, records.spec, config.seed))
    instruction = TrainInstruction("run", 1, make_plan(config, len(records)), 0.0).to_record()
    content = RecordDict({"arrays": to_record(model), "instruction": instruction})
    arrays = train_round(content, config, node)["arrays"]
    assert isinstance(arrays, ArrayRecord)
    sent = read_record(arrays, like=model)
    frozen = {"conv1.weight", "fc1.bias", "fc2.bias"}
    assert {name for name in model if np.array_equal(sent[name], model[name])} == frozen
