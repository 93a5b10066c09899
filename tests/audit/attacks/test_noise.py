"""The noise by itself: the clients' own code passes, and faults that sums hide are found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from calyx.audit.attacks.noise import gradient_probe, noise, sealing_probe
from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.findings.measured import noise as finding
from calyx.audit.findings.measured.noise_law import remains
from calyx.audit.finished_run import AuditedRun
from calyx.audit.report.html import to_html
from calyx.audit.run import audit_run
from calyx.shared.errors import UsageError
from calyx.simulations import run
from calyx.simulations.run_folder import RunFolder

SMALL = ("training.rounds=2", "federation.clients=3", "data.max_records=120", "privacy.epsilon=30")
SEALED = (*SMALL, "secure_aggregation.min_contributors=3")
OPEN = (*SMALL, "secure_aggregation.scheme=none")
LOCAL = (*OPEN, "privacy.noise=local", "privacy.sampling=poisson")
ALONE = (*OPEN, "privacy.noise=local", "privacy.unit=client")


def nothing(*_: object) -> None:
    """Receives progress."""


def folder_of(settings: tuple[str, ...], out: Path) -> Path:
    run(settings=settings, out=out, workers=1)
    return out


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(SEALED, tmp_path_factory.mktemp("noise") / "sealed")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(LOCAL, tmp_path_factory.mktemp("noise") / "local")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(ALONE, tmp_path_factory.mktemp("noise") / "alone")


def test_the_report_shows_noise_that_is_as_planned(sealed: Path) -> None:
    report = audit_run(sealed, only=["noise"], progress=nothing).report
    found = report.noise
    assert isinstance(found, finding.NoiseSection)
    assert not found.violated and found.rounding is not None
    assert found.remainder.vectors == 8 and found.remainder.pairs == 28
    assert report.headline.status == "not confirmed"  # the run was not repeated here
    page = to_html(report)
    assert "Rounding to the grid" in page and "OUT OF LINE" not in page


def test_a_fault_of_rounding_makes_the_headline(
    sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nearest(scaled: NDArray[np.float64], _: np.random.Generator) -> NDArray[np.int64]:
        return np.rint(scaled).astype(np.int64)

    monkeypatch.setattr("calyx.client.sealing.sealing.dithered_rounding", nearest)
    report = audit_run(sealed, only=["noise"], progress=nothing).report
    assert report.headline.status == "contradicted"
    assert "OUT OF LINE" in to_html(report)


@pytest.mark.parametrize(
    ("name", "rounding"),
    [
        ("law", lambda scaled, _: np.floor(scaled)),
        ("law", lambda scaled, _: np.floor(scaled + 0.5)),
        ("law", lambda scaled, generator: np.floor(scaled + 0.9 * generator.random(scaled.shape))),
        (
            "repeated",
            lambda scaled, _: np.floor(scaled + np.random.default_rng(1).random(scaled.shape)),
        ),
    ],
)
def test_rounding_without_a_secret_draw_is_found(
    sealed: Path, monkeypatch: pytest.MonkeyPatch, name: str, rounding: Callable[..., Any]
) -> None:
    monkeypatch.setattr(
        "calyx.client.sealing.sealing.dithered_rounding",
        lambda *given: rounding(*given).astype(np.int64),
    )
    audited = AuditedRun(sealed)
    arrays = sealing_probe.with_little_noise(audited, noise.nodes_of(audited), noise.CALLS)
    found = finding.rounded(arrays)
    assert getattr(found, f"{name}_p_value") < 1e-4
    assert not found.as_planned


def test_a_missing_clamp_is_found(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "calyx.shared.encryption.quantise.IntegerGrid.scaled",
        lambda self, x: x.astype(float) / self.step,
    )
    audited = AuditedRun(sealed)
    arrays = sealing_probe.with_little_noise(audited, noise.nodes_of(audited), noise.CALLS)
    assert finding.rounded(arrays).clamp_p_value == 0.0


def test_rounding_as_planned_is_not_suspected(sealed: Path) -> None:
    """With other randomness each time: the calls are seeded by the run."""
    audited = AuditedRun(sealed)
    found = []
    for number in range(10):
        nodes = [
            type(node)(**{**vars(node), "simulation_seed": 1000 + number})
            for node in noise.nodes_of(audited)
        ]
        arrays = sealing_probe.with_little_noise(audited, nodes, noise.CALLS)
        found.append(finding.rounded(arrays))
    assert all(one.as_planned for one in found)
    assert min(one.law_p_value for one in found) < 0.9


def test_each_layer_of_private_training_has_its_noise(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audited = AuditedRun(local)

    def measured() -> Any:
        found = gradient_probe.one_step(audited, noise.nodes_of(audited), noise.CALLS)
        return remains(found.arrays())

    assert measured().as_planned

    from calyx.client.training.dp_sgd import NoisyOptimizer

    real = NoisyOptimizer.add_noise

    def all_but_one(self: Any) -> None:
        bare = self.params[-1].summed_grad.clone()
        real(self)
        self.params[-1].grad = bare.to(self.params[-1].dtype)

    monkeypatch.setattr(NoisyOptimizer, "add_noise", all_but_one)
    found = measured()
    assert not found.as_planned
    assert found.worst_part.startswith("tensor") and found.part_ratio < 0.1
    assert found.energy_p_value > 1e-4  # ten of nine thousand values do not show in the whole


@pytest.mark.parametrize(("factor", "violated"), [(1.0, False), (0.9, True), (0.0, True)])
def test_the_noise_of_whole_updates_is_measured(
    alone: Path, monkeypatch: pytest.MonkeyPatch, factor: float, violated: bool
) -> None:
    from calyx.shared.privacy.noise import SeededNoise

    real = SeededNoise.gaussian
    monkeypatch.setattr(
        SeededNoise, "gaussian", lambda self, shape, std: real(self, shape, factor * std)
    )
    store = EvidenceStore.anew(alone)
    noise.run(RunFolder(alone), store, nothing, workers=1)
    found = finding.find(AuditedRun(alone), store)
    assert found is not None and found.rounding is None
    assert found.remainder.vectors == 6
    assert found.violated is violated
    assert found.remainder.energy_ratio == pytest.approx(factor**2, abs=0.02)


def test_a_run_whose_clients_add_no_noise_has_none_to_look_at(tmp_path: Path) -> None:
    folder = folder_of((*OPEN, "privacy.noise=none", "training.rounds=1"), tmp_path / "run")
    with pytest.raises(UsageError, match="no client adds noise"):
        noise.run(RunFolder(folder), EvidenceStore.anew(folder), nothing)
