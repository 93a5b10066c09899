"""A run that does nothing must not look like one that worked."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Calyx = Callable[..., Any]

# It passes every look at it, the step on two made-up records too, and fails on real batches.
BROKEN = """
from torch import nn

class Broken(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.last = nn.Linear(64, classes)

    def forward(self, x):
        if self.training and len(x) > 2:
            raise RuntimeError("broken")
        return self.last(x.flatten(1))

def make(shape, classes):
    return Broken(classes)
"""
SETTINGS = (
    "model.name=broken_net:make",
    "federation.clients=3",
    "data.max_records=90",
    "privacy.unit=client",
    "privacy.noise=local",
    "secure_aggregation.scheme=none",
)
SHORT = tuple(word for setting in SETTINGS for word in ("--set", setting))


@pytest.fixture(autouse=True)
def _with_a_broken_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_net.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_two_rounds_without_a_usable_reply_end_a_run_with_the_clients_reason(
    calyx: Calyx, tmp_path: Path
) -> None:
    rounds = ("--set", "training.rounds=9", "--workers", "1")
    outcome = calyx("simulate", *SHORT, *rounds, "--out", "x", "--json")
    assert (outcome.code, outcome.out) == (1, "")
    last = outcome.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "rounds 1 and 2 brought no usable reply" in last
    assert "unexpected RuntimeError on the client" in last
    journal = map(json.loads, (tmp_path / "x" / "metrics.jsonl").read_text().splitlines())
    assert [e["round"] for e in journal if e["event"] == "round"] == [1, 2]


def test_a_run_in_which_nothing_was_learned_says_so_everywhere(
    calyx: Calyx, tmp_path: Path
) -> None:
    rounds = ("--set", "training.rounds=1", "--workers", "1")
    outcome = calyx("simulate", *SHORT, *rounds, "--out", "x", "--json")
    assert outcome.code == 1
    result = json.loads(outcome.out.splitlines()[-1])
    assert result["rounds_with_effect"] == 0 and result["epsilon_max"] > 0
    lines = outcome.err.splitlines()
    told = ["learned", "nothing:", "no", "round", "had", "an", "effect"]
    assert told in [line.split() for line in lines]
    assert "nothing was learned: no round had an effect; client 0: unexpected" in lines[-1]

    report = json.loads((tmp_path / "x" / "audit" / "report.json").read_text())
    assert report["headline"]["status"] == "nothing learned"
    assert report["headline"]["title"].startswith("Nothing was learned: no round had an effect; ε")
    assert not report["agreement"]["agrees"]
    page = (tmp_path / "x" / "audit" / "report.html").read_text()
    assert 'class="verdict nothing-learned"' in page
    assert page.index("Nothing was learned") < page.index("For whom")
    assert ".verdict.nothing-learned .status" in page  # which is red

    again = calyx("report", "x")
    assert again.out.startswith("SIMULATED  Nothing was learned")


@pytest.mark.parametrize("command", ["plan", "simulate"])
def test_a_folder_that_the_source_does_not_read_is_refused(
    calyx: Calyx, tmp_path: Path, command: str
) -> None:
    (tmp_path / "csv").mkdir()
    outcome = calyx(command, "--data-dir", "csv")
    assert (outcome.code, outcome.out) == (2, "")
    assert "digits reads no folder" in outcome.error_line
    assert "data.source = npz" in outcome.hint
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", ["plan", "simulate"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_refused_before_anything_is_made(
    calyx: Calyx, tmp_path: Path, command: str
) -> None:
    outcome = calyx(command, "--set", "training.device=cuda")
    assert (outcome.code, outcome.out) == (2, "")
    assert "set training.device=cpu" in outcome.hint
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", ["plan", "simulate"])
def test_a_model_that_no_client_could_train_is_found_without_records_to_protect_too(
    calyx: Calyx, tmp_path: Path, command: str
) -> None:
    (tmp_path / "broken_net.py").write_text(BROKEN.replace(" and len(x) > 2", ""))
    sys.modules.pop("broken_net", None)
    outcome = calyx(command, *SHORT)
    assert (outcome.code, outcome.out) == (2, "")
    assert "on 2 made-up records it failed with RuntimeError: broken" in outcome.error_line
    assert not (tmp_path / "runs").exists()


def test_a_plan_finds_a_model_that_cannot_be_trained_privately(
    calyx: Calyx, tmp_path: Path
) -> None:
    always = BROKEN.replace(" and len(x) > 2", "")
    (tmp_path / "broken_net.py").write_text(always)
    sys.modules.pop("broken_net", None)
    outcome = calyx("plan", *SHORT, "--set", "privacy.unit=record")
    assert (outcome.code, outcome.out) == (2, "")
    assert "cannot be trained privately" in outcome.error_line
