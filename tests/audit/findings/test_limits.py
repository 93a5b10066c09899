"""A report says what a run's own settings leave uncovered."""

from __future__ import annotations

from pathlib import Path

from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.findings.promised.limits import find
from calyx.audit.finished_run import AuditedRun
from calyx.simulations import run

SMALL = {"training.rounds": 1, "federation.clients": 3, "secure_aggregation.min_contributors": 2}


def limits(folder: Path) -> dict[str, str]:
    found = find(AuditedRun(folder), EvidenceStore.anew(folder))
    return {limit.name: limit.text for limit in found.limits}


def test_weights_from_elsewhere_and_an_early_end_are_named(tmp_path: Path) -> None:
    run(settings=SMALL, out=tmp_path / "first", workers=1)
    assert (
        not {"the weights it started from", "the test figure"} & limits(tmp_path / "first").keys()
    )
    more = {**SMALL, "training.patience": 4}
    run(settings=more, out=tmp_path / "second", start=tmp_path / "first", workers=1)
    told = limits(tmp_path / "second")
    config = AuditedRun(tmp_path / "second").config
    assert config.training.start_sha256 in told["the weights it started from"]
    assert "after 4 rounds" in told["the test figure"]
