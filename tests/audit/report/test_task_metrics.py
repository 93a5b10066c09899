"""A run that is judged by an error: no section of its report takes it for a classification."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calyx.audit.compare import compare, write_comparison
from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.findings.measured import utility
from calyx.audit.findings.measured.canaries import CanarySection
from calyx.audit.finished_run import AuditedRun
from calyx.audit.report.html import comparison_to_html
from calyx.audit.run import Reported, audit_run, report_new_run, report_run
from calyx.audit.verify import verify
from calyx.shared.errors import EvidenceError
from calyx.simulations import run
from tests.audit.conftest import journal_of, rewrite_journal

TASK = """
import numpy as np
from torch import nn
from calyx.shared.tasks import Metric, Task

def records(place):
    features = np.random.default_rng(1).normal(size=(240, 3)).astype(np.float32)
    return features, features @ np.array([3.0, -2.0, 1.0], dtype=np.float32)

def linear(shape, outputs):
    return nn.Linear(*shape, outputs)

def hidden(shape, outputs):
    return nn.Sequential(nn.Linear(*shape, 32), nn.Tanh(), nn.Linear(32, outputs))

def losses(outputs, labels):
    return (outputs[:, 0] - labels).square()

def mae(outputs, labels):
    return (outputs[:, 0] - labels).abs().mean()

def near(outputs, labels):
    return ((outputs[:, 0] - labels).abs() < 1).float().mean()

task = Task(
    losses,
    (Metric("mae", mae, "MAE", higher_is_better=False), Metric("near", near, is_share=True)),
    records,
)
"""
SETTINGS = (
    "task.kind=judged_by_error:task",
    "data.source=task",
    "data.view=stored",
    "model.name=judged_by_error:hidden",
    "training.learning_rate=0.01",
    "federation.clients=3",
    "secure_aggregation.scheme=none",
)


@pytest.fixture(scope="module")
def importable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the task's module."""
    folder = tmp_path_factory.mktemp("task")
    (folder / "judged_by_error.py").write_text(TASK)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        # Repeated runs are small, too: processes take longer to start than they take.
        patch.setattr("calyx.simulations.engines.engine.default_workers", lambda _clients: 1)
        yield folder


@pytest.fixture(scope="module")
def audited(importable: Path) -> Reported:
    """A private run with its audit; not to be changed."""
    out = importable / "private"
    private = (*SETTINGS, "privacy.noise=local", "privacy.sampling=full")
    run("digits-cnn", rounds=2, settings=private, out=out, data_dir=importable, workers=1)
    wanted = ["replay", "unprotected", "canaries", "membership", "views"]
    return audit_run(out, only=wanted, progress=lambda _what, _share: None)


@pytest.fixture(scope="module")
def plain(importable: Path) -> Path:
    """A run without privacy whose clients tell their own metrics; not to be changed."""
    out = importable / "plain"
    settings = (*SETTINGS, "privacy.noise=none", "federation.client_evaluation=true")
    run("digits-cnn", rounds=2, settings=settings, out=out, data_dir=importable, workers=1)
    return out


def visible(page: str) -> str:
    """The text of a page."""
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def test_the_report_names_the_metric_of_the_task_and_its_cost(audited: Reported) -> None:
    found = audited.report.utility
    mae, near = found.metrics
    assert [mae.metric.shown, near.metric.shown] == ["MAE", "near"]
    assert mae.value is not None and mae.without_privacy is not None
    assert mae.cost == mae.value - mae.without_privacy
    assert near.value is not None and near.without_privacy is not None
    assert near.cost == near.without_privacy - near.value
    assert found.accuracy is None and found.cost_in_points is None
    assert found.accuracy_by_round == (None, None)
    assert audited.report.headline.model.startswith(
        f"MAE {mae.value:.3f} on 48 test records (lower is better); without privacy "
    )
    text = visible(audited.html_path.read_text())
    assert text.count(audited.report.headline.model) == 2  # on the first page and in its section
    assert f"MAE (lower is better) {mae.value:.3f} {mae.without_privacy:.3f}" in text
    assert f"Near {100 * near.value:.1f} %" in text
    assert 'alt="Line chart: MAE on the server' in audited.html_path.read_text()


def test_values_beside_attacks_are_of_that_metric_too(audited: Reported) -> None:
    canaries, membership = audited.report.canaries, audited.report.membership
    assert isinstance(canaries, CanarySection)
    assert canaries.metric.name == "mae"
    assert canaries.value_with_canaries is not None and canaries.value_without is not None
    assert canaries.value_cost == canaries.value_with_canaries - canaries.value_without
    assert canaries.accuracy_with_canaries is None and canaries.accuracy_cost is None
    told: dict[str, Any] = {} if membership is None else membership.model_dump()
    assert told["shadow_value"] > 0 and told["shadow_accuracy"] is None
    text = visible(audited.html_path.read_text())
    assert f"MAE of the run with canaries {canaries.value_with_canaries:.3f}, without" in text
    assert f"Their MAE {told['shadow_value']:.3f}" in text


def test_what_needs_classes_is_left_out_with_its_reason(audited: Reported) -> None:
    report = audited.report
    reasons = {step.name: step.reason for step in report.audit.steps if not step.done}
    assert "needs one class a record" in reasons["evaluation"]
    assert "one class each" in reasons["views"]
    assert report.utility.groups == () and report.utility.worst_group is None
    text = visible(audited.html_path.read_text())
    assert "Not by class: what this task predicts is no class" in text
    assert "Worst class" not in text
    assert "accuracy" not in text.lower().replace(reasons["evaluation"], "")


def test_a_model_too_small_for_canaries_has_a_report_without_them(importable: Path) -> None:
    out = importable / "tiny"
    tiny = (*SETTINGS, "privacy.noise=local", "model.name=judged_by_error:linear")
    run("digits-cnn", rounds=1, settings=tiny, out=out, data_dir=importable, workers=1)
    done = audit_run(out, only=["canaries"], progress=lambda _what, _share: None)
    reasons = {step.name: step.reason for step in done.report.audit.steps}
    assert "a model of 4 parameters has room for 1 canaries" in reasons["canaries"]
    assert done.report.canaries is None


def test_page_and_data_of_any_task_can_be_verified(audited: Reported) -> None:
    assert audited.json_path.read_text() == audited.report.to_json()
    assert verify(audited.json_path).html
    assert audited.report.replay is not None and audited.report.replay.verdict == "the same"


def test_the_repeated_run_is_compared_in_every_metric(audited: Reported, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(audited.html_path.parents[1], tmp_path / "run"))
    events = journal_of(copied)
    for event in events:
        if event["event"] == "round":
            event["metrics"]["mae"] = 0.001
    rewrite_journal(copied, events)
    again = audit_run(copied, only=["replay"], progress=lambda _what, _share: None)
    assert again.report.replay is not None
    assert again.report.replay.differs == ("the journal tells of other rounds",)


def test_metrics_of_clients_and_their_worst_tenth_are_in_the_report(plain: Path) -> None:
    done = report_run(plain)
    mae, near = done.report.utility.clients
    assert (mae.metric.name, near.metric.name) == ("mae", "near")
    assert mae.worst is not None and mae.worst > mae.mean > 0  # of an error, the largest
    assert near.worst is None
    text = visible(done.html_path.read_text())
    assert f"MAE (lower is better) {mae.mean:.3f} {mae.worst:.3f}" in text
    assert done.report.headline.model.endswith("on 48 test records (lower is better).")


def test_runs_are_compared_by_the_metric_that_they_share(
    audited: Reported, plain: Path, reported_run: Path, tmp_path: Path
) -> None:
    private = audited.html_path.parents[1]
    found = compare([private, plain])
    assert found.metric is not None and found.metric.name == "mae"
    assert found.runs[0].cost == audited.report.utility.headline.cost
    page = comparison_to_html(found)
    assert "<h1>MAE against ε</h1>" in page
    assert "Scatter chart of MAE against epsilon" in page
    mixed = compare([private, reported_run])
    assert mixed.metric is None
    assert any(note.startswith("The metrics differ (MAE, accuracy)") for note in mixed.notes)
    write_comparison(mixed, tmp_path / "mixed.html")
    text = (tmp_path / "mixed.html").read_text()
    assert "<h1>Runs against ε</h1>" in text
    assert "Scatter chart" not in text
    assert re.search(r">MAE \d\.\d+<", text) and re.search(r">accuracy \d+\.\d %<", text)


def test_a_run_from_before_there_were_tasks_is_still_reported(run_dir: Path) -> None:
    events = journal_of(run_dir)
    for event in events:
        event.pop("metrics", None)
    rewrite_journal(run_dir, events)
    done = report_new_run(run_dir)
    (accuracy,) = done.report.utility.metrics
    assert accuracy.metric.shown == "accuracy"
    assert accuracy.value == done.report.utility.accuracy == events[-1]["accuracy"]
    assert done.report.headline.model.startswith("Accuracy ")
    verify(run_dir)


def test_evidence_from_before_there_were_tasks_still_gives_the_cost(run_dir: Path) -> None:
    store = EvidenceStore.anew(run_dir)
    store.put_json("unprotected-twin", {"accuracy": [0.5, 0.9], "rounds": [1, 2]})
    found = utility.find(AuditedRun(run_dir), store)
    assert found.accuracy_without_privacy == found.headline.without_privacy == 0.9
    assert found.accuracy is not None
    assert found.cost_in_points == pytest.approx(100 * (0.9 - found.accuracy))
    assert all(other.without_privacy is None for other in found.metrics[1:])


@pytest.mark.parametrize("metrics", [[], "mae", [{"name": "mae"}]], ids=str)
def test_a_journal_that_tells_of_metrics_wrongly_is_named(run_dir: Path, metrics: object) -> None:
    events = journal_of(run_dir)
    next(event for event in events if event["event"] == "start")["metrics"] = metrics
    rewrite_journal(run_dir, events)
    with pytest.raises(EvidenceError, match="start event tells of"):
        AuditedRun(run_dir)


def test_the_name_of_a_metric_cannot_become_markup_or_a_formula(
    plain: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(plain, tmp_path / "run"))
    events = journal_of(copied)
    start = next(event for event in events if event["event"] == "start")
    start["metrics"][0]["shown"] = "$x^ <script>"
    rewrite_journal(copied, events)
    done = report_new_run(copied)
    page = done.html_path.read_text()
    assert "<script" not in page and "&lt;script" in page
    assert json.loads(done.json_path.read_text())["utility"]["metrics"][0]["metric"]["shown"]
