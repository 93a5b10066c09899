"""`calyx` is the only name that is ours: a user's own modules of any other name stand in no way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import calyx

THEIRS = ("client", "server", "shared", "audit", "simulations", "cli", "authority", "bench")
MODEL = """
from torch import nn

def build(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, classes))
"""
SETTINGS = {
    "model.name": "mymodel:build",
    "training.rounds": 2,
    "federation.clients": 4,
    "data.max_records": 200,
    "privacy.noise": "local",
    "secure_aggregation.scheme": "none",
}
SCRIPT = f"""
import sys
from calyx import run

if __name__ == "__main__":
    result = run(settings={SETTINGS!r}, out="run", engine=sys.argv[1], workers=2)
    assert result.rounds_with_effect == 2
    print(result.epsilon_max)
"""


@pytest.fixture
def users_folder(tmp_path: Path) -> Path:
    """A project of Flower's own layout, with the names that Calyx's folders have."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in THEIRS:
        (folder / f"{name}.py").write_text("raise RuntimeError('a module of the user')\n")
    (folder / "mymodel.py").write_text(MODEL)
    (folder / "script.py").write_text(SCRIPT)
    return folder


@pytest.mark.parametrize(
    "engine", ["local", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])]
)
def test_a_script_beside_a_client_py_and_a_server_py_runs_its_own_model(
    engine: str, users_folder: Path, as_installed: dict[str, str]
) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, "-S", "script.py", engine],
        cwd=users_folder,
        env=as_installed,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout.splitlines()[-1]) <= 3
    assert (users_folder / "run" / "model.safetensors").exists()


@pytest.mark.slow
def test_the_command_runs_with_such_a_folder_first_on_the_path(
    users_folder: Path, as_installed: dict[str, str]
) -> None:
    arguments = [f"--set={key}={value}" for key, value in SETTINGS.items()]
    arguments += ["--workers", "2", "--out", "run", "--json"]
    done = subprocess.run(
        [sys.executable, "-S", "-m", "calyx.cli.main", "simulate", *arguments],
        cwd=users_folder,
        env={**as_installed, "PYTHONPATH": f"{users_folder}:{as_installed['PYTHONPATH']}"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["rounds_with_effect"] == 2
    assert "report" in told, done.stderr


def test_importing_calyx_imports_nothing_else() -> None:
    script = (
        "import sys; before = set(sys.modules); import calyx; dir(calyx)\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    packages = {name.partition(".")[0] for name in done.stdout.split()}
    assert packages - sys.stdlib_module_names == {"calyx"}


@pytest.mark.parametrize("first", ["calyx.simulations", "calyx.simulations.run", "calyx.cli.main"])
def test_what_calyx_exports_does_not_depend_on_what_was_imported_before(first: str) -> None:
    script = (
        f"import {first}\n"
        "from calyx import CalyxError, RunResult, __version__, run\n"
        "print(run.__module__, RunResult.__module__, issubclass(CalyxError, Exception))\n"
        "print(__version__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    exported, version = done.stdout.splitlines()
    assert exported == "calyx.simulations.run calyx.simulations.run_result True"
    assert version == calyx.__version__


def test_an_error_of_ours_is_caught_without_importing_torch() -> None:
    script = "import sys; from calyx import CalyxError; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_dir_lists_what_is_exported_and_any_other_name_is_an_attribute_error() -> None:
    names = ["CalyxError", "RunResult", "Task", "__version__", "run"]
    assert dir(calyx) == sorted(calyx.__all__) == names
    with pytest.raises(AttributeError, match="module 'calyx' has no attribute 'simulate'"):
        calyx.simulate  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'simulate'"):
        from calyx import simulate  # type: ignore[attr-defined]  # noqa: F401
