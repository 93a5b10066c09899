"""Membership inference finds members where models remember them, and nothing where they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audit.attacks import membership
from audit.attacks.membership import complementary_halves
from audit.audited_run import AuditedRun
from audit.evidence import EvidenceStore
from audit.findings import membership as finding
from shared.errors import UsageError
from simulations import run
from simulations.run_folder import RunFolder

SMALL = (
    "federation.clients=2",
    "data.max_records=40",
    "data.test_fraction=0.5",
    "privacy.noise=none",
    "secure_aggregation.scheme=none",
    "training.rounds=15",
    "training.learning_rate=0.3",
    "training.local_epochs=4",
    "training.batch_size=8",
    "federation.average_decay=0",
)


@pytest.fixture(scope="module")
def remembered(tmp_path_factory: pytest.TempPathFactory) -> EvidenceStore:
    """Many passes over twenty records without noise: the model knows them."""
    folder = tmp_path_factory.mktemp("membership") / "run"
    run(settings=SMALL, out=folder, workers=1)
    store = EvidenceStore.anew(folder)
    membership.run(RunFolder(folder), store, lambda *_: None, shadows=4, workers=1)
    return store


def test_whole_federations_without_noise_remember_their_records(remembered: EvidenceStore) -> None:
    section = finding.find(AuditedRun(remembered.run_dir), remembered)
    assert section is not None
    assert (section.shadows, section.records) == (4, 40)
    assert {attack.attack for attack in section.attacks} == {
        "LiRA, online",
        "LiRA, offline",
        "RMIA",
    }
    assert max(attack.auc for attack in section.attacks) > 0.7
    for attack in section.attacks:
        assert attack.auc_low <= attack.auc <= attack.auc_high
        # 80 records outside are too few for one in a thousand.
        assert [rate.wanted_false_positive_rate for rate in attack.rates] == [0.01]


def test_every_record_is_in_half_of_the_shadows() -> None:
    parts = [np.arange(0, 11), np.arange(11, 31)]
    inside = complementary_halves(6, parts, 40, seed=1)
    assert (inside[:, :31].sum(axis=0) == 3).all()
    assert not inside[:, 31:].any()  # nobody holds these
    assert (inside[0, :31] ^ inside[1, :31]).all()
    assert not (inside[0] == inside[2]).all()


def test_confidences_that_say_nothing_give_an_interval_around_one_half() -> None:
    generator = np.random.default_rng(0)
    shadows, records = 8, 400
    inside = complementary_halves(shadows, [np.arange(records)], records, seed=0)
    arrays = {
        "inside": inside,
        "train": generator.normal(size=(shadows, records)) + generator.normal(size=records),
        "test": generator.normal(size=(shadows, 200)),
    }
    for name, score in finding.SCORES.items():
        attack = finding.attacked(name, finding.scores_of(score, arrays), inside)
        assert attack.auc_low - 0.02 < 0.5 < attack.auc_high + 0.02, name
        first, second = attack.rates
        assert first.low <= 0.02 and second.low <= 0.005, name


@pytest.mark.parametrize("effect", [0.5, 2.0])
def test_scores_grow_with_what_the_model_remembers(effect: float) -> None:
    generator = np.random.default_rng(1)
    shadows, records = 8, 400
    inside = complementary_halves(shadows, [np.arange(records)], records, seed=0)
    hardness = 3 * generator.normal(size=records)
    arrays = {
        "inside": inside,
        "train": hardness + generator.normal(size=(shadows, records)) + effect * inside,
        "test": 3 * generator.normal(size=200) + generator.normal(size=(shadows, 200)),
    }
    online = finding.attacked("online", finding.scores_of(finding.lira_online, arrays), inside)
    # Two unit Gaussians at this distance; knowing the means from a few shadows costs a little.
    ideal = {0.5: 0.638, 2.0: 0.921}[effect]
    assert ideal - 0.1 < online.auc < ideal + 0.03


def test_too_few_shadows_or_records_are_refused(remembered: EvidenceStore, tmp_path: Path) -> None:
    folder = RunFolder(remembered.run_dir)
    for shadows in (2, 5):
        with pytest.raises(UsageError, match="even number"):
            membership.run(folder, remembered, lambda *_: None, shadows=shadows)
