"""Repeating the run detects a forged folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from calyx.audit.attacks import replay as attack
from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.findings.measured import replay
from calyx.audit.finished_run import AuditedRun
from calyx.audit.report.build import build
from calyx.audit.run import audit_run
from calyx.audit.verify import verify
from calyx.client.ledger.ledger import Budget, Ledger
from calyx.shared.privacy.skellam_mechanism import SkellamMechanism
from calyx.simulations import run
from calyx.simulations.run_folder import RunFolder

SETTINGS = (
    "federation.clients=3",
    "data.max_records=150",
    "training.rounds=2",
    "secure_aggregation.min_contributors=3",
)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("honest") / "run"
    run(settings=[*SETTINGS, "privacy.epsilon=3"], out=out, workers=1)
    return out


@pytest.fixture
def folder(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "run"))


def replayed(folder: Path) -> tuple[replay.ReplaySection, str]:
    store = EvidenceStore.anew(folder)
    attack.run(RunFolder(folder), store, lambda *_: None, workers=1)
    report = build(AuditedRun(folder), store)
    assert report.replay is not None
    return report.replay, report.headline.status


def test_an_honest_run_is_the_same_to_the_last_bit(folder: Path) -> None:
    found, status = replayed(folder)
    assert (found.verdict, found.differs, found.model_distance) == ("the same", (), 0.0)
    assert status == "guaranteed"


def test_a_model_of_another_run_is_found(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    run(settings=[*SETTINGS, "privacy.epsilon=30"], out=other, workers=1)
    shutil.copy(other / "model.safetensors", folder / "model.safetensors")
    found, status = replayed(folder)
    assert (found.verdict, status) == ("not the same", "disagrees")
    assert found.differs[0].startswith("the final model is another one, by ")


def test_one_bit_of_the_model_is_found(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = min(weights)
    weights[name].reshape(-1).view(np.uint8)[0] ^= 1
    save_file(weights, path)
    assert replayed(folder)[0].verdict == "not the same"


def test_a_model_that_was_trained_without_noise_by_other_code_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        silent: Callable[..., object] = lambda self, _: np.zeros(self.dimension, np.int64)  # noqa: E731
        patched.setattr(SkellamMechanism, "noise", silent)
        run(settings=[*SETTINGS, "privacy.epsilon=3"], out=out, workers=1)
    found, status = replayed(out)
    assert (found.verdict, status) == ("not the same", "disagrees")


def rewrite_ledgers(folder: Path, factor: float) -> None:
    """Ledgers that are whole and tell of more noise than there was."""
    for path in sorted((folder / "ledgers").glob("*.sqlite")):
        with Ledger.read_only(path) as ledger:
            fingerprint, entries = ledger.data_fingerprint, ledger.entries()
        path.unlink()
        with Ledger.open(path, data_fingerprint=fingerprint) as ledger:
            for entry in entries:
                mechanism = entry.event.skellam
                assert mechanism is not None
                noise = factor * entry.event.noise_multiplier
                more = replace(
                    entry.event,
                    noise_multiplier=noise,
                    skellam=replace(mechanism, noise_multiplier=noise),
                )
                ledger.charge(
                    run=entry.run,
                    round=entry.round,
                    instruction=entry.instruction,
                    event=more,
                    budget=Budget(100.0, 1e-4, "record"),
                    repeatable=False,
                )


def test_ledgers_and_journal_with_more_noise_than_planned_are_found_without_repeating(
    folder: Path,
) -> None:
    rewrite_ledgers(folder, 1.6)
    journal = folder / "metrics.jsonl"
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    run_now = AuditedRun(folder)
    events[0]["noise_multiplier"] = run_now.ledgers[0].events[0].noise_multiplier
    for event in events:
        if "epsilon_max" in event:
            event["epsilon_max"] = 1.5
    journal.write_text("".join(json.dumps(event) + "\n" for event in events))
    report = build(AuditedRun(folder), EvidenceStore.anew(folder))
    again = next(c for c in report.agreement.comparisons if c.what == "charges, planned again")
    assert not again.agrees
    assert report.headline.status == "disagrees"
    found, status = replayed(folder)
    assert (found.verdict, status) == ("not the same", "disagrees")
    assert any("3 of 3 ledgers" in text for text in found.differs)


@pytest.mark.parametrize("key", ["python", "machine", "code_hash"])
def test_what_another_machine_or_version_made_is_not_called_guaranteed(
    folder: Path, key: str
) -> None:
    environment = json.loads((folder / "environment.json").read_text())
    environment[key] = "another"
    (folder / "environment.json").write_text(json.dumps(environment))
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights[min(weights)] += 1
    save_file(weights, path)
    found, status = replayed(folder)
    assert (found.verdict, status) == ("not comparable", "not confirmed")
    assert "another then" in found.environment[0]


def test_a_report_by_other_code_than_made_the_run_says_so(folder: Path) -> None:
    environment = json.loads((folder / "environment.json").read_text())
    environment["code_hash"] = "0" * 64
    (folder / "environment.json").write_text(json.dumps(environment))
    report = build(AuditedRun(folder), EvidenceStore.anew(folder))
    assert not report.agreement.same_code
    assert report.headline.status == "not confirmed"


def test_an_audit_that_leaves_the_repetition_out_is_not_green(folder: Path) -> None:
    done = audit_run(folder, only=["unprotected"], progress=lambda *_: None)
    assert done.report.headline.status == "not confirmed"


def test_the_audit_repeats_the_run_and_its_report_verifies(folder: Path) -> None:
    done = audit_run(folder, only=["replay"], progress=lambda *_: None)
    assert done.report.replay is not None and done.report.replay.verdict == "the same"
    page = done.html_path.read_text()
    assert "SIMULATED" in page and done.report.replay.answer in page
    assert verify(folder).report == done.report
