"""calyx report and calyx audit, as a user sees them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from calyx.audit.run import ATTACKS
from calyx.simulations import run

Calyx = Callable[..., Any]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short private run without a report."""
    settings = (
        "training.rounds=2",
        "federation.clients=3",
        "data.max_records=90",
        "privacy.noise=local",
        "privacy.sampling=poisson",
        "secure_aggregation.scheme=none",
    )
    out = tmp_path_factory.mktemp("cli") / "run"
    run("digits-cnn", settings=settings, out=out, workers=1)
    return out


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, as runs/first of where the user is."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(finished, tmp_path / "runs" / "first"))


def test_a_report_is_written_verified_and_refused_when_a_byte_is_flipped(
    calyx: Calyx, folder: Path
) -> None:
    outcome = calyx("report", "runs/first")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[0] == "SIMULATED  ε = 3.00 at δ = 0.0001"
    assert outcome.out.splitlines()[-1] == "report: runs/first/audit/report.html"

    outcome = calyx("audit", "verify", "runs/first/audit/report.json", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["verified"] is True
    assert found["ledgers"] == 3
    assert 2.9 < found["guarantee_epsilon"] <= 3

    path = folder / "metrics.jsonl"
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    outcome = calyx("audit", "verify", "runs/first/audit/report.json")
    assert outcome.code == 1
    assert "metrics.jsonl was altered" in outcome.error_line
    outcome = calyx("report", "runs/first")
    assert outcome.code == 1
    assert "metrics.jsonl is damaged at line 1" in outcome.error_line


def test_scripts_get_the_figures_of_an_audit_in_one_line(calyx: Calyx, folder: Path) -> None:
    outcome = calyx("audit", "run", "runs/first", "--skip", ",".join(ATTACKS), "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert set(found) == {
        "guarantee_epsilon",
        "lower_bounds",
        "status",
        "metrics",
        "seconds",
        "report",
    }
    assert next(iter(found["metrics"])) == "accuracy"
    assert Path(found["report"]).is_file()
    assert "left out: canaries" in outcome.err


def test_runs_are_compared_on_one_page(calyx: Calyx, folder: Path) -> None:
    shutil.copytree(folder, folder.with_name("second"))
    outcome = calyx("audit", "compare", "runs/first", "runs/second", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert len(found["runs"]) == 2
    assert Path("comparison.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("report", "nowhere"), "there is no folder nowhere"),
        (("report", "."), "is not a run folder"),
        (("audit", "run", "runs/first", "--skip", "magic"), "no attack 'magic'"),
        (("audit", "verify", "report.json"), "there is no report"),
        (("audit", "compare", "runs/first"), "at least two"),
    ],
)
def test_wrong_requests_get_one_line(
    calyx: Calyx, folder: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert folder.is_dir()
    outcome = calyx(*arguments)
    assert outcome.code == 2
    assert said in outcome.error_line


def test_a_deleted_ledger_gets_one_line(calyx: Calyx, folder: Path) -> None:
    (folder / "ledgers" / "client-0002.sqlite").unlink()
    outcome = calyx("report", "runs/first")
    assert outcome.code == 1
    assert "the ledger of client 2 is missing" in outcome.error_line


def test_an_unfinished_run_gets_one_line(calyx: Calyx, folder: Path) -> None:
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:5]) + lines[5][:20])
    outcome = calyx("report", "runs/first")
    assert outcome.code == 2
    assert "is not finished" in outcome.error_line
    assert "--resume --out runs/first" in outcome.hint


def test_without_the_extra_the_error_names_it_and_a_run_goes_on(
    calyx: Calyx, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = {"jinja2", "matplotlib"}
    monkeypatch.setattr(
        "calyx.shared.host.optional_packages.find_spec",
        lambda name: None if name in missing else find_spec(name),
    )
    outcome = calyx("audit", "run", "runs/first")
    assert outcome.code == 2
    assert "pip install 'calyx-fl[audit]'" in outcome.hint
    short = ("training.rounds=1", "privacy.noise=none", "secure_aggregation.scheme=none")
    words = [word for setting in short for word in ("--set", setting)]
    outcome = calyx("simulate", *words, "--workers", "1", "--out", "runs/bare")
    assert outcome.code == 0, outcome.err
    assert "warning: no report was made: the privacy report needs jinja2" in outcome.out
    assert "hint: install it with: pip install 'calyx-fl[audit]'" in outcome.out


def test_a_run_makes_its_report_unless_told_not_to(calyx: Calyx, folder: Path) -> None:
    short = ("training.rounds=1", "privacy.noise=none", "secure_aggregation.scheme=none")
    words = [word for setting in short for word in ("--set", setting)]
    outcome = calyx("simulate", *words, "--workers", "1", "--out", "runs/a")
    assert "privacy report: runs/a/audit/report.html" in outcome.out.splitlines()
    assert calyx("audit", "verify", "runs/a").code == 0
    calyx("simulate", *words, "--workers", "1", "--out", "runs/b", "--no-report")
    assert not Path("runs/b/audit").exists()
    assert folder.is_dir()
