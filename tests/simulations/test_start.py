"""Runs that start from other weights, end early, and follow a schedule."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file
from torch import nn

from calyx import run
from calyx.server.state.journal import RunEvents
from calyx.shared.config.load import build
from calyx.shared.errors import ModelError
from calyx.shared.models.start import load_start
from calyx.simulations.run_folder import RunFolder

SMALL = {"training.rounds": 2, "federation.clients": 3, "secure_aggregation.min_contributors": 2}


def test_a_run_starts_from_the_weights_of_another(tmp_path: Path) -> None:
    first = run(settings=SMALL, out=tmp_path / "first", workers=1)
    # A step this small leaves the weights where they were.
    still = {**SMALL, "federation.server_learning_rate": 1e-9, "federation.average_decay": 0.0}
    run(settings=still, out=tmp_path / "second", start=first.run_dir, workers=1)
    before = load_file(tmp_path / "first" / "model.safetensors")
    after = load_file(tmp_path / "second" / "model.safetensors")
    assert max(abs(after[name] - value).max() for name, value in before.items()) < 1e-6
    config = RunFolder(tmp_path / "second").stored_config()
    assert len(config.training.start_sha256) == 64


def test_weights_that_were_changed_meanwhile_are_refused_on_resume(tmp_path: Path) -> None:
    first = run(settings=SMALL, out=tmp_path / "first", workers=1)
    weights = Path(first.run_dir) / "model.safetensors"
    run(settings=SMALL, out=tmp_path / "second", start=weights, workers=1)
    changed = {name: value + 1 for name, value in load_file(weights).items()}
    save_file(changed, weights)
    with pytest.raises(ModelError, match="other weights"):
        run(out=tmp_path / "second", resume=True, workers=1)


def test_weights_of_another_model_are_refused_by_name(tmp_path: Path) -> None:
    first = run(settings=SMALL, out=tmp_path / "first", workers=1)
    lstm = {**SMALL, "model.name": "lstm", "data.view": "sequence"}
    with pytest.raises(ModelError, match="another model"):
        run(settings=lstm, out=tmp_path / "second", start=first.run_dir, workers=1)
    with pytest.raises(ModelError, match="cannot be read"):
        run(settings=SMALL, out=tmp_path / "third", start=tmp_path / "nothing", workers=1)


def test_weights_without_their_hash_are_not_passed_over() -> None:
    """A run from fresh weights has another meaning, and would have the same digest."""
    with pytest.raises(ModelError, match="hash"):
        load_start(nn.Linear(2, 2), build({"training": {"start": "first"}}).training)


def test_a_run_that_stalls_ends_and_spends_no_more(tmp_path: Path) -> None:
    still = {
        **SMALL,
        "training.rounds": 6,
        "training.patience": 2,
        "federation.server_learning_rate": 1e-9,
        "federation.average_decay": 0.0,
    }
    result = run(settings=still, out=tmp_path / "run", workers=1)
    assert result.rounds == 3
    assert result.epsilon_max is not None
    assert result.epsilon_max < 3.0
    assert RunEvents.read(tmp_path / "run").of("finished")
