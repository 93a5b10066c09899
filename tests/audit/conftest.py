"""A real run for the audit to look at, made once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from calyx.audit.run import report_run
from calyx.simulations import run

SETTINGS = (
    "privacy.noise=local",
    "privacy.sampling=poisson",
    "secure_aggregation.scheme=none",
    "federation.clients=3",
    "data.max_records=150",
)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a private run of two rounds; not to be changed."""
    out = tmp_path_factory.mktemp("audited") / "run"
    run("digits-cnn", rounds=2, settings=SETTINGS, out=out, workers=1)
    return out


@pytest.fixture(scope="session")
def reported_run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with its report; not to be changed."""
    folder = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("reported") / "run"))
    report_run(folder)
    return folder


@pytest.fixture
def run_dir(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def journal_of(run_dir: Path) -> list[dict[str, Any]]:
    """The events of a run's journal."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def rewrite_journal(run_dir: Path, events: list[dict[str, Any]]) -> None:
    """Put other events in their place."""
    lines = [json.dumps(event) + "\n" for event in events]
    (run_dir / "metrics.jsonl").write_text("".join(lines))
