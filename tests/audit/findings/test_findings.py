"""What is found in a real run, and in one whose records were made to disagree."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.findings.promised import (
    agreement,
    composition,
    guarantee,
    parties,
    plain_words,
    privacy_curve,
)
from calyx.audit.findings.promised.privacy_curve import CurvePoint, worst_power
from calyx.audit.finished_run import AuditedRun
from calyx.client.ledger.ledger import Budget, Ledger
from calyx.shared.errors import CalyxError, EvidenceError, UsageError
from calyx.shared.privacy.accounting import spent
from calyx.shared.privacy.event import PrivacyEvent
from tests.audit.conftest import journal_of, rewrite_journal


def test_the_headline_is_what_the_ledgers_add_up_to(finished_run: Path) -> None:
    run = AuditedRun(finished_run)
    found = guarantee.find(run, EvidenceStore(finished_run))
    delta = run.config.privacy.delta
    expected = []
    for path in sorted((finished_run / "ledgers").iterdir()):
        with Ledger.read_only(path) as ledger:
            expected.append(ledger.spent(delta, "record").epsilon)
    assert found.epsilon == max(expected)
    assert [cost.epsilon for cost in found.by_client] == expected
    assert found.units == sum(run.record_counts)
    by_delta = {point.delta: point.epsilon for point in found.curve}
    assert sorted(by_delta.values(), reverse=True) == list(by_delta.values())
    assert all(line.epsilons[-1] in expected for line in found.by_round)


def test_the_journal_cannot_change_the_headline(run_dir: Path) -> None:
    events = journal_of(run_dir)
    for event in events:
        if event["event"] in ("round", "end"):
            event["epsilon_max"] = 0.01
    rewrite_journal(run_dir, events)
    run, store = AuditedRun(run_dir), EvidenceStore(run_dir)
    found = agreement.find(run, store)
    wrong = [c for c in found.comparisons if not c.agrees]
    assert not found.agrees
    assert {c.what for c in wrong} == {"epsilon of all charges", "epsilon of this run"}
    honest = guarantee.find(run, store).epsilon
    assert honest is not None and honest > 1


def test_other_runs_on_the_same_records_are_added_up(run_dir: Path) -> None:
    before = guarantee.find(AuditedRun(run_dir), EvidenceStore(run_dir)).epsilon
    run = AuditedRun(run_dir)
    event = run.ledgers[0].events[0]
    path = run.ledger_path(0)
    with Ledger.open(path, data_fingerprint=run.ledgers[0].data_fingerprint) as ledger:
        for number in (1, 2, 2):
            ledger.charge(
                run="earlier",
                round=number,
                instruction="ab" * 32,
                event=event,
                budget=Budget(math.inf, 1e-4, "record"),
                repeatable=False,
            )
    run, store = AuditedRun(run_dir), EvidenceStore.anew(run_dir)
    after = guarantee.find(run, store)
    assert before is not None and after.epsilon is not None and after.epsilon > before
    assert after.epsilon == spent(run.ledgers[0].events, after.delta).epsilon
    found = composition.find(run, store)
    assert [(c.run, c.charges) for c in found.runs] == [("earlier", 3), (run.name, 6)]
    assert found.repeated_charges == 1
    # The journal knows nothing of the other run, and says so.
    assert not agreement.find(run, store).agrees


def test_each_record_that_is_missing_or_unfinished_is_named(run_dir: Path) -> None:
    (run_dir / "ledgers" / "client-0001.sqlite").unlink()
    with pytest.raises(EvidenceError, match="ledger of client 1 is missing"):
        AuditedRun(run_dir)
    rewrite_journal(run_dir, journal_of(run_dir)[:-8])
    with pytest.raises(UsageError, match="not finished.*\nhint: .*--resume"):
        AuditedRun(run_dir)
    (run_dir / "config.toml").unlink()
    with pytest.raises(UsageError, match="not a run folder"):
        AuditedRun(run_dir)
    with pytest.raises(UsageError, match="no folder"):
        AuditedRun(run_dir / "nowhere")


@pytest.mark.parametrize(
    "damage", ["metrics.jsonl", "environment.json", "partition.npz", "config.toml"]
)
def test_damaged_files_give_one_line(run_dir: Path, damage: str) -> None:
    (run_dir / damage).write_bytes(b"\xff{nonsense\n" * 3)
    with pytest.raises(CalyxError) as caught:
        run = AuditedRun(run_dir)
        guarantee.find(run, EvidenceStore(run_dir))
    assert "\n" not in str(caught.value)


def gaussian_curve(mu: float) -> tuple[CurvePoint, ...]:
    event = PrivacyEvent("gaussian", "record", 1 / mu, "full", 1.0, 1)
    return privacy_curve.epsilon_curve([event], "record")


def test_the_worst_attacker_against_a_gaussian_is_nearly_the_gaussian_one() -> None:
    from scipy.stats import norm

    curve = gaussian_curve(1.0)
    for rate in (0.001, 0.01, 0.1, 0.5):
        exact = norm.cdf(norm.ppf(rate) + 1.0)
        bound = worst_power(curve, rate)
        assert exact <= bound <= 1.05 * exact


def test_mu_of_a_gaussian_is_its_own() -> None:
    assert privacy_curve.gaussian_mu(gaussian_curve(0.7)) == pytest.approx(0.7, rel=0.01)


def test_the_odds_follow_from_epsilon(finished_run: Path) -> None:
    found = guarantee.find(AuditedRun(finished_run), EvidenceStore(finished_run))
    words = plain_words.in_words(found.model_copy(update={"epsilon": math.log(3)}))
    even = words.beliefs[-1]
    assert even.before == 0.5
    assert even.at_most == pytest.approx(0.75)
    assert even.at_least == pytest.approx(0.25)
    assert "at most 75 in 100" in even.words
    assert "factor of at most 3.00." in words.promise
    # e is 2.718...: 2.7 would promise more than there is.
    assert "2.72." in plain_words.in_words(found.model_copy(update={"epsilon": 1.0})).promise
    none = plain_words.in_words(found.model_copy(update={"epsilon": None}))
    assert "no differential privacy" in none.promise
    assert none.beliefs == ()


def test_local_noise_holds_against_everybody(finished_run: Path) -> None:
    found = parties.find(AuditedRun(finished_run), EvidenceStore(finished_run))
    assert found.does_not_hold_against == ()
    assert found.colluders_tolerated is None
    assert "server" in found.holds_against


def test_noise_of_sampled_batches_is_seen_in_the_plan(finished_run: Path) -> None:
    run = AuditedRun(finished_run)
    assert all(0 < plan.sampling_rate < 1 for plan in run.plans)
    np.testing.assert_array_equal(run.record_counts, [50, 50, 50])
