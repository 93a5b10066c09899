"""Reference scenarios, on federations that really run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calyx.audit.attacks.inversion import scenarios
from calyx.audit.attacks.inversion.estimates import contribution
from calyx.audit.attacks.inversion.reference_federation import (
    DELTA,
    Reference,
    capture_round,
    reference,
    sealed,
)
from calyx.audit.attacks.inversion.scenarios import reference_scenarios, run_scenarios
from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.findings.measured import inversion
from calyx.audit.findings.measured.inversion import InversionSection, Scenario
from calyx.audit.finished_run import AuditedRun
from calyx.audit.replay.capture import released_integers
from calyx.simulations.presets import resolve

CHOSEN = (
    "plain-closed-form",
    "plain-smooth",
    "plain-cnn",
    "noise-closed-form",
    "noise-cnn",
    "noised-sum-2",
    "authority",
    "colluding-client",
)


@pytest.fixture(scope="module")
def data() -> Reference:
    return reference(resolve("digits-cnn", []))


@pytest.fixture(scope="module")
def section(
    data: Reference, finished_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> InversionSection:
    import shutil

    folder = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("scenarios") / "run"))
    store, told = EvidenceStore(folder), []
    chosen = [scenario for scenario in reference_scenarios() if scenario.name in CHOSEN]
    rows, arrays = run_scenarios(data, chosen, lambda _, share: told.append(share))
    assert told == sorted(told) and told[-1] == 1.0
    store.put_json(scenarios.NAME, {"source": data.source, "rungs": rows})
    store.put_arrays(scenarios.PICTURES, arrays)
    found = inversion.find(AuditedRun(folder), store)
    assert found is not None
    return found


def scenario(section: InversionSection, name: str) -> Scenario:
    (found,) = [r for r in section.rungs if r.name == name]
    return found


def test_updates_in_clear_give_pictures_away(section: InversionSection) -> None:
    assert scenario(section, "plain-closed-form").psnr_db >= 60
    assert scenario(section, "plain-smooth").psnr_db >= 60
    assert scenario(section, "plain-cnn").psnr_db >= 30
    assert scenario(section, "plain-cnn").recovered == 1


@pytest.mark.parametrize(
    "name", ["noise-closed-form", "noise-cnn", "noised-sum-2", "authority", "colluding-client"]
)
def test_with_noise_no_picture_is_better_than_the_mean_image(
    section: InversionSection, name: str
) -> None:
    found = scenario(section, name)
    assert 0.95 < found.noise_multiplier < 1.1
    assert found.margin_db <= 1 and found.recovered == 0


def test_every_rung_shows_its_pictures_and_the_bytes_it_was_made_from(
    section: InversionSection,
) -> None:
    assert [r.name for r in section.rungs] == list(CHOSEN)
    for found in section.rungs:
        assert len(found.pictures) == len(found.truth) > 0
        assert all(p.array().shape == (28, 28) for p in found.pictures)
        assert found.captured and all(c.bytes > 0 for c in found.captured)
    assert "With noise nothing was recovered" in section.answer


def test_released_sum_is_the_sum_of_what_clients_sealed(data: Reference) -> None:
    """So a client that takes its own integers out of a sum knows the rest exactly."""
    captured = capture_round(data, sealed(3, 1.0), clients=3)
    (released,) = captured.capture.find("released sum", 1)
    total = np.sum([contribution(captured, client) for client in range(3)], axis=0)
    np.testing.assert_array_equal(released_integers(released), total)
    assert captured.plan.delta == DELTA


def test_public_key_helps_nobody_to_recognise_an_update(data: Reference) -> None:
    (wanted,) = [r for r in reference_scenarios() if r.name == "public-key"]
    rows, arrays = run_scenarios(data, [wanted], lambda *_: None)
    facts = rows[0]["facts"]
    assert facts["equal_ciphertexts"] == 0
    # Of 4e5 numbers, chance alone correlates to some 0.002.
    assert facts["largest_correlation"] < 0.01
    assert arrays["public-key"].shape == (1, 28, 28)
