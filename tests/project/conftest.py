"""Distributions of the tree: a wheel, a source archive, an editable install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = (".*", "runs", "build", "dist", "*.egg-info", "__pycache__", "shared-data")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input"]
OFFLINE = ["--no-index", "--no-deps", "--no-build-isolation"]


def _done(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree, links as links; building leaves files behind."""
    try:
        newest_enough = int(version("setuptools").partition(".")[0]) >= 77
    except PackageNotFoundError:
        newest_enough = False
    if not newest_enough or find_spec("pip") is None:
        pytest.skip("pip and setuptools 77 or newer are needed to build a distribution")
    copy = tmp_path_factory.mktemp("tree") / "calyx-tree"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    return copy


@pytest.fixture(scope="session")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the tree."""
    return _wheel_of(tree, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def wheel_of_sdist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the tree's source archive."""
    folder = tmp_path_factory.mktemp("sdist")
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    _done([sys.executable, "-c", build], tree)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return _wheel_of(folder / archive.name.removesuffix(".tar.gz"), folder / "wheel")


def _wheel_of(source: Path, folder: Path) -> Path:
    _done([*PIP, "wheel", *OFFLINE, "--wheel-dir", str(folder), str(source)], source)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="session")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheel puts into site-packages."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="session")
def editable(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with an editable install, without its dependencies."""
    folder = tmp_path_factory.mktemp("editable")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    # To build it, the setuptools that is here; afterwards nothing but Calyx.
    (site,) = folder.glob("lib/python*/site-packages")
    borrowed = site / "borrowed.pth"
    borrowed.write_text(f"{third_party()}\n")
    _done([*PIP[:3], "--python", str(python), *PIP[3:], "install", *OFFLINE, "-e", str(tree)], tree)
    borrowed.unlink()
    return python


def third_party() -> Path:
    """Where the packages lie that Calyx needs."""
    spec = find_spec("setuptools")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parents[1]


@pytest.fixture
def as_installed(unpacked: Path) -> dict[str, str]:
    """Environment of a process for which the wheel is installed, and the tree is not.

    Start it with ``-S``: path files, an editable install's among them, are not followed then.
    """
    path = os.pathsep.join([str(unpacked), str(third_party())])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
