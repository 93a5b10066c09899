"""What `pip install` puts on a machine: one package, complete, with types that a checker sees."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from calyx.simulations.presets import preset_names

ROOT = Path(__file__).resolve().parents[2]
PARTIES = ("server", "client", "shared", "authority", "simulations", "audit", "cli")

USES = """
from calyx import CalyxError, RunResult, __version__, run

def spent(rounds: int) -> float | None:
    try:
        result = run("digits-cnn", rounds=rounds, settings={"privacy.epsilon": 3}, out="runs/a")
    except CalyxError as error:
        print(__version__.upper(), error.exit_code)
        raise
    reveal_type(result)
    return result.epsilon_max

def shown(result: RunResult) -> str:
    return result.run_dir
"""
MISUSES = """
import calyx
calyx.run(rounds="three")
calyx.nonsense
"""


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def modules() -> set[str]:
    """Every module of the parties, as it is called in a wheel."""
    found = {
        f"calyx/{path.relative_to(ROOT).as_posix()}"
        for party in PARTIES
        for path in (ROOT / party).rglob("*.py")
    }
    assert len(found) > 200
    return found


def test_a_wheel_holds_one_package_and_nothing_else(wheel: Path) -> None:
    names = names_in(wheel)
    tops = {name.partition("/")[0] for name in names}
    assert {top.partition("-")[0] for top in tops} == {"calyx", "calyx_fl"}
    assert {name for name in names if name.endswith(".py")} == {*modules(), "calyx/__init__.py"}


def test_a_wheel_holds_presets_templates_and_the_mark_of_types(wheel: Path) -> None:
    names = names_in(wheel)
    assert "calyx/py.typed" in names
    assert {f"calyx/simulations/presets/{name}.toml" for name in preset_names()} <= names
    templates = (ROOT / "audit" / "report" / "templates").iterdir()
    assert {f"calyx/audit/report/templates/{path.name}" for path in templates} <= names


def test_the_source_archive_makes_the_same_wheel(wheel: Path, wheel_of_sdist: Path) -> None:
    with zipfile.ZipFile(wheel) as direct, zipfile.ZipFile(wheel_of_sdist) as detour:
        assert set(direct.namelist()) == set(detour.namelist())
        for name in direct.namelist():
            if name.startswith("calyx/"):
                assert direct.read(name) == detour.read(name), name


@pytest.mark.parametrize("arguments", [["presets"], ["--help"]], ids=" ".join)
def test_an_installed_command_runs_from_any_folder(
    arguments: list[str], as_installed: dict[str, str], unpacked: Path, tmp_path: Path
) -> None:
    command = "import sys, calyx.cli.main as m; print(m.__file__); sys.exit(m.main())"
    done = subprocess.run(
        [sys.executable, "-S", "-c", command, *arguments],
        env=as_installed,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(unpacked / "calyx"))
    assert ("digits-cnn" if arguments == ["presets"] else "simulate") in done.stdout


@pytest.mark.parametrize("party", PARTIES)
def test_no_other_name_is_importable(
    party: str, as_installed: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import {party}"],
        env=as_installed,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert f"No module named '{party}'" in done.stderr


def test_an_editable_install_brings_one_name_too(editable: Path, tmp_path: Path) -> None:
    script = (
        "import importlib.util as u\n"
        f"print([n for n in {(*PARTIES, 'tests', 'bench', 'docs', 'calyx')} if u.find_spec(n)])"
    )
    done = subprocess.run(
        [editable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "['calyx']\n"


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_a_users_type_checker_sees_our_types(
    kind: str, editable: Path, wheel: Path, tmp_path: Path
) -> None:
    python = editable if kind == "editable" else _with_wheel(wheel, tmp_path / "venv")
    (tmp_path / "uses.py").write_text(USES)
    (tmp_path / "misuses.py").write_text(MISUSES)
    told = _checked(python, tmp_path, "uses.py")
    assert 'Revealed type is "calyx.simulations.run_result.RunResult"' in told
    assert "error:" not in told
    told = _checked(python, tmp_path, "misuses.py")
    assert 'Argument "rounds" to "run" has incompatible type "str"' in told
    assert 'Module has no attribute "nonsense"' in told


def _checked(python: Path, folder: Path, name: str) -> str:
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), name]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.stdout + done.stderr


def _with_wheel(wheel: Path, folder: Path) -> Path:
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return folder / "bin" / "python"
