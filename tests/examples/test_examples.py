"""Each example runs as its page says, from any folder. (tests/e2e runs the one of real devices.)"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = ("simulate", "own_data", "own_model")


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_from_any_folder_and_prints_what_its_page_shows(
    name: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name / f"{name}.py"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    accuracy, epsilon, folder = done.stdout.splitlines()
    page = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    assert f"python examples/{name}/{name}.py\n" in page
    # The accuracy of the page is of one machine; another one's last bits may lead elsewhere.
    assert without_figures(accuracy) in without_figures(page)
    assert float(accuracy.split()[1].rstrip("%")) > 60
    assert 7.9 < float(epsilon.split()[1]) <= 8
    assert without_figures(epsilon) in without_figures(page)
    assert (Path(folder.removeprefix("run folder ")) / "model.safetensors").exists()
    assert Path(folder.removeprefix("run folder ")).parent == tmp_path / "runs"


@pytest.mark.slow
def test_a_task_runs_from_the_folder_it_is_in_and_reports_its_own_metric(tmp_path: Path) -> None:
    module = (EXAMPLES / "own_task" / "mytask.py").read_text(encoding="utf-8")
    (tmp_path / "mytask.py").write_text(module, encoding="utf-8")
    done = subprocess.run(
        [
            Path(sys.executable).parent / "calyx",
            "simulate",
            "--task",
            "mytask:task",
            "--set",
            "training.rounds=10",
            "--json",
        ],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["accuracy"] is None
    # Always guessing the mean has an error of .66.
    assert 0 < result["metrics"]["mae"] < 0.66
    page = (EXAMPLES / "own_task" / "README.md").read_text(encoding="utf-8")
    assert "$ calyx simulate --task mytask:task --set training.rounds=10\n" in page
    shown = re.search(r"test mae +(\d\.\d+)", page)
    # The last bits are of one machine; another one's may lead elsewhere, but not far in ten rounds.
    assert shown and float(shown[1]) == pytest.approx(result["metrics"]["mae"], abs=0.05)
    assert "mae" in Path(result["report"]).read_text(encoding="utf-8")


def without_figures(text: str) -> str:
    return re.sub(r"\d[\d.]*", "#", text)


def test_every_example_has_a_page_and_is_listed_and_run_by_a_test() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert folders == {*SCRIPTS, "own_task", "deploy"}
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for name in folders:
        assert f"[{name}]({name})" in listed
        assert (EXAMPLES / name / "README.md").is_file()
    assert not list(EXAMPLES.rglob("__init__.py"))
