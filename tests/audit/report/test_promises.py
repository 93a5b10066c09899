"""No sentence of a report points at something that is not in that report."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.finished_run import AuditedRun
from calyx.audit.report.build import build
from calyx.audit.report.html import to_html
from calyx.audit.report.schema import Report
from calyx.simulations import run

SMALL = ("federation.clients=3", "data.max_records=150", "privacy.sampling=full")
OPEN = "secure_aggregation.scheme=none"
SEALED = ("secure_aggregation.scheme=bfv", "secure_aggregation.min_contributors=3")
RUNS: dict[str, tuple[str, ...]] = {
    "records, local": (OPEN, "privacy.noise=local"),
    "records, sealed": (*SEALED, "privacy.noise=distributed"),
    "records, nominal": (
        *(OPEN, "privacy.noise=local", "privacy.record_counts=nominal"),
        "privacy.nominal_records=50",
    ),
    "records, weak": (OPEN, "privacy.noise=local", "privacy.epsilon=40"),
    "clients, central": (OPEN, "privacy.unit=client", "privacy.noise=central"),
    "clients, sealed": (*SEALED, "privacy.unit=client", "privacy.noise=distributed"),
    "nothing": (OPEN, "privacy.noise=none"),
}

# What points elsewhere in the report. A new way to do so belongs here.
POINTER = re.compile(
    r"the report (?:gives|shows|says|has|lists)|\bsee (?:the|what|also)\b|\bin “|\blook at\b"
    r"|\b(?:treated|given|shown|listed|named|explained) (?:below|above)\b"
    r"|\b(?:the list|the table|the section|the figures?) (?:of|for|in|on)\b",
    re.IGNORECASE,
)
KEPT: dict[str, Callable[[Report, str], bool]] = {
    "the report gives the figure for two and for five": lambda report, page: (
        [cost.records for cost in report.guarantee.several_records] == [2, 5]
        and "A person with several records" in page
    ),
    "a person with several is treated below": lambda _, page: (
        "A person with several records" in page
    ),
    "see the list of uncounted accesses": lambda report, page: (
        bool(report.uncounted.accesses) and "Accesses that are not counted" in page
    ),
    "The full list is in “Not covered”": lambda report, page: (
        bool(report.limits.limits) and re.search(r"\nNot covered\n", page) is not None
    ),
}


@pytest.fixture(scope="module", params=RUNS)
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Report, str]:
    """A run's kind, its report, and everything that a reader of the page can read."""
    folder: Path = tmp_path_factory.mktemp("promises") / "run"
    run("digits-cnn", rounds=1, settings=(*SMALL, *RUNS[request.param]), out=folder, workers=1)
    report = build(AuditedRun(folder), EvidenceStore.anew(folder))
    page = re.sub(r"<(style|script|svg|title)\b.*?</\1>", "", to_html(report), flags=re.DOTALL)
    return request.param, report, html.unescape(re.sub(r"<[^>]*>", "\n", page))


def test_what_a_report_points_at_is_in_it(told: tuple[str, Report, str]) -> None:
    _, report, page = told
    text = " ".join(page.split())
    for found in POINTER.finditer(text):
        around = text[max(0, found.start() - 80) : found.end() + 80]
        known = [words for words in KEPT if words in around]
        assert known, f"no check shows that this is in the report: {around!r}"
        assert all(KEPT[words](report, page) for words in known), around


def test_a_report_speaks_of_parties_that_were_there(told: tuple[str, Report, str]) -> None:
    name, report, page = told
    present = {party.name for party in report.parties.parties if party.was_there}
    listed = {*report.parties.holds_against, *report.parties.does_not_hold_against}
    assert listed == present
    against = report.headline.against_whom
    assert set(against.split(", ")) <= present or against == "no one"
    assert "anyone watching the network" not in against
    for text in report.headline.not_guaranteed:
        if text.startswith("Against "):
            assert text.removeprefix("Against ").partition(":")[0] in present
    if "sealed" not in name:
        assert not re.search(r"key authority|ciphertext", page, re.IGNORECASE)


def test_a_report_without_attacks_speaks_of_none(told: tuple[str, Report, str]) -> None:
    _, report, page = told
    assert report.audit.kind == "report" and not report.lower_bounds
    assert not re.search(r"attacks of this audit|canaries could|was measured with", page)
    assert "Audit of this run" not in page


def test_a_report_says_no_more_of_counts_and_noise_than_is_true(
    told: tuple[str, Report, str],
) -> None:
    name, report, page = told
    counts = next(a for a in report.uncounted.accesses if a.name == "record counts")
    assert (counts.status == "none") == (name == "records, nominal")
    assert ("nor an exact count" in page) == (name == "records, nominal")
    assert ("its noise follows from the seed" in page) == (name != "nothing")
