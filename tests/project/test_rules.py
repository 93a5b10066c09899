"""What must hold for the tree as a whole."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

from calyx.shared.config.load import all_keys
from calyx.shared.config.rules import NEEDS_DIRECTORY
from calyx.simulations.presets import load_preset, preset_names, resolve

ROOT = Path(__file__).resolve().parents[2]


def test_import_rule_holds() -> None:
    """A folder is a trust boundary: server code cannot reach the decryptor."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--config", "pyproject.toml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_every_configuration_key_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    missing = [key for key in all_keys() if f"`{key}`" not in text]
    assert missing == []


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_valid_and_say_what_they_are_for(name: str) -> None:
    data = load_preset(name)["data"]
    stands_in = Path("anywhere") if data["source"] in NEEDS_DIRECTORY else None
    column = {"data.label": "class"} if data["source"] == "table" else {}
    config = resolve(name, column, data_dir=stands_in)
    assert config.name == name
    first = (ROOT / "simulations" / "presets" / f"{name}.toml").read_text().splitlines()[0]
    assert first.startswith("# ") and len(first) > 20


def test_bundle_for_flower_can_be_made_and_holds_no_code() -> None:
    """Every party runs the Calyx that is installed on its own machine."""
    from flwr.cli.build import build_fab_from_disk

    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(ROOT))) as bundle:
        assert {name for name in bundle.namelist() if not name.startswith(".info/")} == {
            "pyproject.toml",
            "README.md",
        }
        project = tomllib.loads(bundle.read("pyproject.toml").decode())
    components = {f"{party}app": f"calyx.{party}.app:app" for party in ("server", "client")}
    assert project["tool"]["flwr"]["app"]["components"] == components
    for component in components.values():
        module, _, attribute = component.partition(":")
        assert hasattr(import_module(module), attribute)


def test_no_pickle_in_our_code() -> None:
    sources = [
        path
        for package in ("authority", "client", "server", "shared", "simulations", "cli", "audit")
        for path in (ROOT / package).rglob("*.py")
    ]
    assert len(sources) > 30
    pattern = re.compile(
        r"\b(import (cloud)?pickle|from (cloud)?pickle|allow_pickle=True|torch\.load)"
    )
    offenders = [str(p) for p in sources if pattern.search(p.read_text())]
    assert offenders == []
