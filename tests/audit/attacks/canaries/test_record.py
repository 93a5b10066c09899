"""Canaries in whole runs: committed to first, seen by who can see them, below the guarantee."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from calyx.audit.attacks.canaries import record as record_canaries
from calyx.audit.attacks.canaries.record import COMMITMENT, NAME, commitment
from calyx.audit.bounds.scores import likelihood_scores
from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.findings.measured import canaries as finding
from calyx.audit.findings.measured import mechanism_checks
from calyx.audit.finished_run import AuditedRun
from calyx.shared.errors import EvidenceError, UsageError
from calyx.simulations import run
from calyx.simulations.run_folder import RunFolder

SMALL = (
    "training.rounds=4",
    "federation.clients=4",
    "data.max_records=200",
    "secure_aggregation.min_contributors=4",
    "privacy.epsilon=8",
)
LOCAL = (
    *SMALL,
    "privacy.noise=local",
    "privacy.sampling=poisson",
    "secure_aggregation.scheme=none",
    "training.local_steps=2",
)


def audited(folder: Path, settings: tuple[str, ...], number: int = 300) -> EvidenceStore:
    run(settings=settings, out=folder, workers=1)
    store = EvidenceStore.anew(folder)
    record_canaries.run(RunFolder(folder), store, lambda *_: None, canaries=number)
    return store


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> EvidenceStore:
    return audited(tmp_path_factory.mktemp("audit") / "sealed", SMALL)


def test_included_canaries_stand_out_by_one_clip_norm_a_round(sealed: EvidenceStore) -> None:
    arrays = sealed.get_arrays(NAME)
    coins, informed = arrays["coins"], arrays["informed"]
    assert informed.shape == (4, 300)
    gap = informed[:, coins].mean() - informed[:, ~coins].mean()
    spread = arrays["informed-noise"].mean() * np.sqrt(4 / 300 / 4)
    assert abs(gap - 1.0) < 5 * spread


def test_bounds_do_not_exceed_the_guarantee_and_the_noise_is_as_planned(
    sealed: EvidenceStore,
) -> None:
    section = finding.find(AuditedRun(sealed.run_dir), sealed)
    assert section is not None and section.guarantee is not None
    assert section.committed_before_round_1 and section.unit_matches
    assert not section.violated
    public, informed = section.observers
    assert (public.observer, informed.observer) == ("public", "informed")
    assert section.sums.agree and section.sums.sums == 3
    for observer in section.observers:
        assert observer.proven <= section.guarantee
        assert observer.signal.as_planned
        assert observer.noise.measured == pytest.approx(observer.noise.expected, rel=0.1)
    assert informed.auc > 0.7  # epsilon 8 hides little from an observer who knows everything else
    json.dumps(section.model_dump())


def test_coins_are_fixed_before_the_run_and_a_flipped_one_is_found(sealed: EvidenceStore) -> None:
    assert sealed.index(COMMITMENT) < sealed.index(f"{NAME}-run") < sealed.index(NAME)
    arrays = sealed.get_arrays(NAME)
    coins = arrays["coins"].copy()
    promised = sealed.get_json(COMMITMENT)["sha256"]
    assert commitment(coins, arrays["nonce"].tobytes()) == promised
    coins[0] ^= True
    assert commitment(coins, arrays["nonce"].tobytes()) != promised


def test_other_coins_than_those_committed_to_are_refused(
    sealed: EvidenceStore, tmp_path: Path
) -> None:
    arrays = sealed.get_arrays(NAME)
    run(settings=(*SMALL, "training.rounds=1"), out=tmp_path / "run", workers=1)
    forged = EvidenceStore.anew(tmp_path / "run")
    forged.put_json(COMMITMENT, sealed.get_json(COMMITMENT))
    forged.put_json(f"{NAME}-run", sealed.get_json(f"{NAME}-run"))
    forged.put_arrays(NAME, {**arrays, "coins": ~arrays["coins"]})
    with pytest.raises(EvidenceError, match="committed"):
        finding.find(AuditedRun(tmp_path / "run"), forged)


def test_local_noise_is_seen_client_by_client(tmp_path: Path) -> None:
    store = audited(tmp_path / "local", LOCAL, number=120)
    section = finding.find(AuditedRun(store.run_dir), store)
    assert section is not None
    (public,) = section.observers
    assert not section.violated
    assert public.noise.measured == pytest.approx(public.noise.expected, rel=0.15)


def test_without_noise_canaries_show_that_nothing_is_guaranteed_or_are_refused(
    tmp_path: Path,
) -> None:
    run(settings=(*SMALL, "privacy.noise=none"), out=tmp_path / "none", workers=1)
    store = EvidenceStore.anew(tmp_path / "none")
    with pytest.raises(UsageError, match="record canaries need"):
        record_canaries.run(RunFolder(tmp_path / "none"), store, lambda *_: None)
    assert store.names() == []


@pytest.mark.parametrize(("share", "too_little"), [(1.0, False), (0.9, True), (1.2, False)])
def test_noise_that_is_too_small_is_found(share: float, too_little: bool) -> None:
    generator = np.random.default_rng(0)
    coins = generator.random(400) < 0.5
    noise = np.full((20, 400), 2.0)
    noise[:, :100] = 0.0  # took no part
    projections = np.where(noise > 0, generator.normal(scale=2.0 * share, size=(20, 400)), 0.0)
    assert mechanism_checks.noise_measured(projections, noise, coins).too_little is too_little


@pytest.mark.parametrize(("weight", "as_planned"), [(1.0, True), (2.0, False), (0.3, False)])
def test_canaries_of_another_weight_than_a_clip_norm_are_found(
    weight: float, as_planned: bool
) -> None:
    generator = np.random.default_rng(0)
    coins, noise = generator.random(400) < 0.5, np.full((20, 400), 2.0)
    projections = generator.normal(scale=2.0, size=(20, 400)) + weight * coins
    found = mechanism_checks.signal_measured(projections, noise, np.ones(400), coins)
    assert found.as_planned is as_planned
    assert found.measured == pytest.approx(weight, abs=4 * found.deviation)


def test_a_canary_without_part_in_a_round_is_scored_by_the_others() -> None:
    projections, noise = np.array([[3.0, 1.0], [0.0, 1.0]]), np.array([[2.0, 2.0], [0.0, 2.0]])
    scores = likelihood_scores(projections, 1.0, noise)
    assert scores == pytest.approx([2.5 / 4, 1.0 / 4])


def test_likelihood_scores_tell_more_than_sums_when_records_are_sampled() -> None:
    generator, rate, spread = np.random.default_rng(1), 0.1, 0.6
    coins = generator.random(2000) < 0.5
    drawn = (generator.random((60, 2000)) < rate) & coins
    projections = generator.normal(scale=spread, size=(60, 2000)) + drawn
    by_likelihood = finding._auc(likelihood_scores(projections, rate, spread), coins)
    assert by_likelihood > finding._auc(projections.sum(0), coins) + 0.02
