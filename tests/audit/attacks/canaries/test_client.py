"""Clients as canaries: where whole clients are protected, and an estimate only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from calyx.audit.attacks.canaries import record as record_canaries
from calyx.audit.attacks.canaries.client import NAME
from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.findings.measured import canaries as finding
from calyx.audit.findings.measured.client_canaries import ClientCanarySection
from calyx.audit.finished_run import AuditedRun
from calyx.audit.report.build import build
from calyx.audit.report.html import to_html
from calyx.shared.errors import UsageError
from calyx.simulations import run
from calyx.simulations.run_folder import RunFolder

CENTRAL = (
    "training.rounds=3",
    "federation.clients=4",
    "data.max_records=120",
    "privacy.unit=client",
    "privacy.noise=central",
    "privacy.epsilon=20",
    "secure_aggregation.scheme=none",
)


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> EvidenceStore:
    folder = tmp_path_factory.mktemp("clients") / "run"
    run(settings=CENTRAL, out=folder, workers=1)
    store = EvidenceStore.anew(folder)
    record_canaries.run(RunFolder(folder), store, lambda *_: None, workers=1)
    return store


def test_a_clients_direction_shows_in_the_model_by_as_much_as_the_noise_allows(
    audited: EvidenceStore,
) -> None:
    cosines = audited.get_arrays(NAME)["cosines"]
    size = audited.get_json(f"{NAME}-run")["dimension"]
    assert len(cosines) == 32 and len(set(cosines.tolist())) == 32
    (event,) = set(AuditedRun(audited.run_dir).ledgers[0].events)
    # Three sums, each with a canary of one clip norm and noise of `noise_multiplier`.
    expected = np.sqrt(3) / event.noise_multiplier
    assert cosines.mean() * np.sqrt(size) == pytest.approx(expected, abs=4 / np.sqrt(32))


def test_the_report_has_the_estimate_and_calls_it_one(audited: EvidenceStore) -> None:
    run = AuditedRun(audited.run_dir)
    section = finding.found(run, audited)
    assert isinstance(section, ClientCanarySection)
    assert section.chance_low is not None and section.chance_high is not None
    assert section.chance_low < section.guarantee < section.chance_high  # type: ignore[operator]
    assert 0 < section.lower < 20 and not section.violated
    assert [bound.kind for bound in section.bounds] == ["model", "estimate"]
    report = build(run, audited)
    assert section.answer in to_html(report)
    json.dumps(report.model_dump(mode="json"), allow_nan=False)


def test_promise_without_meaning_has_no_reference(tmp_path: Path) -> None:
    settings = [s for s in CENTRAL if not s.startswith("privacy.epsilon")]
    run(settings=[*settings, "privacy.epsilon=10000"], out=tmp_path / "run", workers=1)
    store = EvidenceStore.anew(tmp_path / "run")
    store.put_json(f"{NAME}-run", {"dimension": 53_002, "repeats": 1, "clients": 4, "rounds": 3})
    store.put_arrays(NAME, {"cosines": np.array([0.3, 0.29, 0.305, 0.3])})
    section = finding.found(AuditedRun(tmp_path / "run"), store)
    assert isinstance(section, ClientCanarySection)
    assert section.chance_low is None and not section.violated
    assert "9,853 is promised" in section.answer


def test_noise_that_is_missing_shows(audited: EvidenceStore, tmp_path: Path) -> None:
    run(settings=CENTRAL, out=tmp_path / "run", workers=1)
    forged = EvidenceStore.anew(tmp_path / "run")
    facts = audited.get_json(f"{NAME}-run")
    forged.put_json(f"{NAME}-run", facts)
    # As if there were a tenth of the noise.
    forged.put_arrays(NAME, {"cosines": 10 * audited.get_arrays(NAME)["cosines"]})
    section = finding.found(AuditedRun(tmp_path / "run"), forged)
    assert isinstance(section, ClientCanarySection)
    assert section.violated and "DOES NOT HOLD" in section.answer


def test_noise_of_each_client_alone_is_refused(tmp_path: Path) -> None:
    local = [s for s in CENTRAL if not s.startswith("privacy.noise")]
    run(settings=[*local, "privacy.noise=local"], out=tmp_path / "run", workers=1)
    store = EvidenceStore.anew(tmp_path / "run")
    with pytest.raises(UsageError, match="distributed or central noise"):
        record_canaries.run(RunFolder(tmp_path / "run"), store, lambda *_: None)
    assert store.names() == []
