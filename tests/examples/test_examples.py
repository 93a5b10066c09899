"""Each example runs as its page says, from any folder. (tests/e2e runs the one of real devices.)"""

from __future__ import annotations

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


def without_figures(text: str) -> str:
    return re.sub(r"\d[\d.]*", "#", text)


def test_every_example_has_a_page_and_is_listed_and_run_by_a_test() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert folders == {*SCRIPTS, "deploy"}
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for name in folders:
        assert f"[{name}]({name})" in listed
        assert (EXAMPLES / name / "README.md").is_file()
    assert not list(EXAMPLES.rglob("__init__.py"))
