"""Frozen parameters stay the same bits through a whole run, whatever protects the rest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from calyx.shared.config.load import build, from_settings
from calyx.shared.data import load_split
from calyx.shared.models import build_model
from calyx.shared.protocol.arrays import weights_of
from calyx.simulations import run

SMALL = (
    "training.rounds=3",
    "federation.clients=3",
    "data.max_records=150",
    "data.partition=dirichlet",
    "privacy.epsilon=8",
    "model.freeze=conv?.*",
)
CLEAR, CLIENT = "secure_aggregation.scheme=none", "privacy.unit=client"
PLAIN = ("privacy.noise=none", CLEAR)
KINDS = {
    "averaged": (*PLAIN, "federation.average_decay=0.9"),
    "adaptive": (*PLAIN, "federation.strategy=fedyogi"),
    "records": ("privacy.noise=local", CLEAR, "privacy.sampling=poisson"),
    "sealed sums": (
        "privacy.noise=distributed",
        "privacy.sampling=full",
        "secure_aggregation.scheme=bfv",
        "secure_aggregation.min_contributors=3",
    ),
    "clients": ("privacy.noise=local", CLEAR, CLIENT),
    "trusted server": ("privacy.noise=central", CLEAR, CLIENT),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_run_leaves_them_as_they_were_and_trains_the_others(kind: str, tmp_path: Path) -> None:
    settings = (*SMALL, *KINDS[kind])
    run(settings=settings, out=tmp_path / "run", workers=1)
    config = build(from_settings(settings))
    spec = load_split(config.data, config.seed).test.spec
    first = weights_of(build_model(config.model, spec, config.seed))
    last = load_file(tmp_path / "run" / "model.safetensors")
    assert first.keys() == last.keys()
    for name, weight in first.items():
        assert np.array_equal(weight, last[name]) is name.startswith("conv")
    journal = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert not any(json.loads(line).get("skipped") for line in journal)
