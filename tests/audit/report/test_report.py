"""The report of a real run: made, verified, read by machines and by people."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
from pathlib import Path

import pytest

from calyx.audit.compare import compare, write_comparison
from calyx.audit.findings.measured.canaries import CanarySection
from calyx.audit.findings.measured.client_canaries import ClientCanarySection
from calyx.audit.findings.measured.inversion import InversionSection
from calyx.audit.findings.measured.membership import MembershipSection
from calyx.audit.findings.measured.noise import NoiseSection
from calyx.audit.findings.measured.party_views import ViewsSection
from calyx.audit.report.schema import SCHEMA, Report
from calyx.audit.run import audit_run, report_new_run, report_run
from calyx.audit.verify import verify
from calyx.shared.errors import CalyxError, EvidenceError, UsageError
from tests.audit.conftest import journal_of, rewrite_journal


@pytest.fixture
def own_run(reported_run: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(reported_run, tmp_path / "own"))


class Page(html.parser.HTMLParser):
    """What of a page could be fetched from elsewhere, and what has a text instead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.alts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        fields = dict(attrs)
        self.sources += [v or "" for k, v in attrs if k in ("src", "href", "action", "data")]
        if tag == "img":
            self.alts.append(fields.get("alt") or "")


def test_page_and_data_are_made_from_the_same(reported_run: Path) -> None:
    data = json.loads((reported_run / "audit" / "report.json").read_text())
    text = (reported_run / "audit" / "report.html").read_text()
    report = Report.model_validate(data)
    assert data["schema_version"] == SCHEMA
    assert report.headline.title in text
    assert report.audit.evidence_head in text
    for cost in report.guarantee.by_client:
        assert cost.ledger_head[:16] in text
    for limit in report.limits.limits:
        assert limit.name in text


def test_the_page_loads_nothing_and_every_picture_has_a_text(reported_run: Path) -> None:
    page = Page((reported_run / "audit" / "report.html").read_text())
    assert page.sources and all(source.startswith("data:image/") for source in page.sources)
    assert not {"script", "link", "iframe", "object", "form"} & {*page.tags}
    assert len(page.alts) >= 4 and all(len(alt) > 30 for alt in page.alts)


def test_every_field_of_the_report_is_documented(reported_run: Path) -> None:
    documented = (Path(__file__).parents[3] / "docs" / "report-schema.md").read_text()
    data = json.loads((reported_run / "audit" / "report.json").read_text())
    sections = {key: value for key, value in data.items() if isinstance(value, dict)}
    names = [*data, *(f"{key}.{field}" for key, value in sections.items() for field in value)]
    # Of attacks, which this report was made without.
    attacks = (
        ("canaries", CanarySection),
        ("canaries", ClientCanarySection),
        ("noise", NoiseSection),
        ("membership", MembershipSection),
        ("inversion", InversionSection),
        ("views", ViewsSection),
    )
    names += [f"{name}.{field}" for name, section in attacks for field in section.model_fields]
    missing = [name for name in names if f"`{name}`" not in documented]
    assert missing == []


def test_a_report_is_verified_without_training_data(
    own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_data(*_: object) -> None:
        raise AssertionError("training data were asked for")

    monkeypatch.setattr("calyx.shared.data.load.read_source", no_data)
    found = verify(own_run / "audit" / "report.json")
    assert found.html
    assert found.ledgers == 3
    assert found.pieces == 1
    assert verify(own_run).head == found.head


def test_one_flipped_byte_anywhere_is_found(own_run: Path) -> None:
    files = sorted(p for p in own_run.rglob("*") if p.is_file() and p.name != ".lock")
    names = {path.relative_to(own_run).parts[0] for path in files}
    assert {"audit", "ledgers", "batches", "metrics.jsonl", "model.safetensors"} <= names
    for path in files:
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[len(content) // 3] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(CalyxError):
            verify(own_run / "audit" / "report.json")
        path.write_bytes(content)
    verify(own_run / "audit" / "report.json")


def test_a_prettier_figure_is_found_and_named(own_run: Path) -> None:
    path = own_run / "audit" / "report.json"
    data = json.loads(path.read_text())
    data["guarantee"]["epsilon"] = 0.5
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    with pytest.raises(EvidenceError, match='"epsilon": 0.5'):
        verify(path)


def test_reports_that_are_not_there_or_elsewhere_are_named(own_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no report"):
        verify(tmp_path / "report.json")
    moved = tmp_path / "report.json"
    shutil.copy(own_run / "audit" / "report.json", moved)
    with pytest.raises(UsageError, match="not in a run folder"):
        verify(moved)
    shutil.rmtree(own_run / "audit" / "evidence")
    with pytest.raises(EvidenceError, match="no evidence"):
        verify(own_run)


def test_a_changed_run_gets_no_report_until_it_is_audited_anew(own_run: Path) -> None:
    events = journal_of(own_run)
    events[-1]["accuracy"] = 0.99
    rewrite_journal(own_run, events)
    with pytest.raises(EvidenceError, match="metrics.jsonl was altered"):
        report_run(own_run)
    report_new_run(own_run)
    verify(own_run)


def test_disagreement_is_on_the_first_page(own_run: Path) -> None:
    events = journal_of(own_run)
    for event in events:
        if event["event"] in ("round", "end"):
            event["epsilon_max"] = 0.01
    rewrite_journal(own_run, events)
    done = report_new_run(own_run)
    assert done.report.headline.status == "disagrees"
    front = done.html_path.read_text().split("</section>")[0]
    assert "do not tell the same story" in front
    assert "0.0100" in front


def test_moved_sampling_is_on_the_first_page(own_run: Path) -> None:
    shutil.rmtree(own_run / "batches")
    done = report_new_run(own_run)
    assert done.report.headline.status == "moved"
    assert done.report.guarantee.epsilon != done.report.guarantee.epsilon_as_charged
    front = done.html_path.read_text().split("</section>")[0]
    assert "without amplification" in front


def test_names_from_the_run_cannot_become_markup(own_run: Path) -> None:
    path = own_run / "run.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"name": "<script>alert(1)<script>"}))
    text = report_new_run(own_run).html_path.read_text()
    assert "<script" not in text
    assert "&lt;script" in text


def test_an_audit_writes_down_what_it_left_out(own_run: Path) -> None:
    told: list[str] = []
    done = audit_run(own_run, only=["unprotected"], progress=lambda what, _share: told.append(what))
    steps = {step.name: step for step in done.report.audit.steps}
    assert steps["unprotected"].done
    assert steps["canaries"].reason == "left out on request"
    assert done.report.utility.accuracy_without_privacy is not None
    assert "unprotected" in told
    verify(own_run)
    nothing = [name for name in steps if name != "evaluation"]
    again = audit_run(own_run, skip=nothing, progress=lambda _what, _share: None)
    assert again.report.audit.earlier_audits == (done.report.audit.evidence_head,)
    with pytest.raises(UsageError, match="no attack 'x'\nhint: choose from "):
        audit_run(own_run, skip=["x"], progress=lambda _what, _share: None)


def test_runs_are_put_side_by_side(reported_run: Path, own_run: Path, tmp_path: Path) -> None:
    found = compare([reported_run, own_run])
    assert [run.epsilon for run in found.runs] == [found.runs[0].epsilon] * 2
    assert found.notes == ()
    page = tmp_path / "page.html"
    write_comparison(found, page)
    seen = Page(page.read_text())
    assert all(source.startswith("data:image/") for source in seen.sources)
    assert re.search(r"Scatter chart of accuracy against epsilon", seen.alts[0])
    with pytest.raises(UsageError, match="at least two"):
        compare([reported_run])


def test_an_audit_that_was_broken_off_is_to_be_done_anew(own_run: Path) -> None:
    def interrupt(what: str, share: float) -> None:
        if (what, share) == ("unprotected", 1.0):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit_run(own_run, only=["unprotected"], progress=interrupt)
    with pytest.raises(EvidenceError, match=r"broken off\nhint: .*calyx audit run"):
        verify(own_run)
    audit_run(own_run, only=["unprotected"], progress=lambda _what, _share: None)
    verify(own_run)
