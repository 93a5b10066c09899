"""The headline says what epsilon leaves out, for whom it is, and when delta makes it worthless."""

from __future__ import annotations

from pathlib import Path

import pytest

from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.finished_run import AuditedRun
from calyx.audit.report.build import build
from calyx.audit.report.html import to_html
from calyx.audit.report.schema import Report
from calyx.shared.privacy.accounting import spent
from calyx.shared.privacy.epsilon_text import epsilon_text
from calyx.simulations import run

SMALL = (
    "federation.clients=3",
    "data.max_records=150",
    "secure_aggregation.scheme=none",
    "privacy.sampling=full",
)
BY_RECORD = (*SMALL, "privacy.noise=local")
BY_CLIENT = (*SMALL, "privacy.unit=client", "privacy.noise=central")


def reported(folder: Path, *settings: str) -> Report:
    run("digits-cnn", rounds=1, settings=settings, out=folder / "run", workers=1)
    return build(AuditedRun(folder / "run"), EvidenceStore.anew(folder / "run"))


def test_exact_metrics_are_named_wherever_everything_is_promised(tmp_path: Path) -> None:
    report = reported(
        tmp_path, *BY_RECORD, "privacy.release_metrics=true", "federation.client_evaluation=true"
    )
    headline = report.headline
    assert headline.title.endswith(", exact metrics not included")
    assert "except the exact training loss of each client, except exact loss" in headline.guaranteed
    assert sum("Nothing bounds what" in text for text in headline.not_guaranteed) == 2
    # Who gets exact figures learns more than epsilon says.
    assert "server" in report.parties.does_not_hold_against
    assert "server" not in headline.against_whom.split(", ")
    assert "apart from exact metrics" in report.odds.promise
    assert sum("not covered by ε" in text for text in report.parties.releases) == 2
    assert "exact metrics not included" in to_html(report)


def test_without_them_nothing_is_said_to_be_outside(tmp_path: Path) -> None:
    report = reported(tmp_path, *BY_RECORD)
    assert report.guarantee.outside == ()
    assert report.headline.status == "guaranteed"
    assert "metrics" not in report.headline.title + report.headline.guaranteed
    assert report.headline.not_guaranteed == ()


@pytest.mark.parametrize("delta", ["0.3", "0.01"])
def test_a_delta_of_one_over_n_is_no_guarantee(tmp_path: Path, delta: str) -> None:
    """0.01 is below one over the 50 records of each client, and not below that of all 150."""
    report = reported(tmp_path, *BY_RECORD, f"privacy.delta={delta}")
    assert report.headline.status == "delta too large"
    assert report.headline.title == f"δ = {delta} is no protection among 150 records"
    assert "promises no one anything" in report.headline.guaranteed
    assert "No guarantee to rely on" in report.odds.judgement
    page = to_html(report)
    assert 'class="verdict delta-too-large"' in page
    assert "not a guarantee" in page


def test_a_client_level_run_says_what_it_costs_a_record(tmp_path: Path) -> None:
    report = reported(tmp_path, *BY_CLIENT)
    ledger = AuditedRun(tmp_path / "run").ledgers[0]
    found = report.guarantee
    assert found.epsilon_record == spent(ledger.events, found.delta, "record").epsilon
    assert found.epsilon is not None and found.epsilon_record > 2 * found.epsilon
    assert f"only ε = {epsilon_text(found.epsilon_record)}." in report.headline.not_guaranteed[-1]
    assert "for each client, over" in report.headline.guaranteed
    assert epsilon_text(found.epsilon_record) in to_html(report)
