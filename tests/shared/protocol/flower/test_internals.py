"""Flower is what the code that touches its internals was made for; only there is it touched."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import version
from inspect import signature
from pathlib import Path

import pytest

from calyx.shared.errors import RunError
from calyx.shared.protocol.flower import internals as flower
from calyx.shared.protocol.message_size import SizeGuard

ROOT = Path(__file__).resolve().parents[4]
IMPORT = r"^\s*(?:from|import)\s+(flwr(?:\.[\w.]+)?)\s"
PUBLIC = r"flwr\.(app|serverapp|clientapp|simulation)\b"
# The local engine plays Flower's runtime in process: it names four more things (ADR 0003).
ENGINE = {"simulations/engines/grid.py", "simulations/engines/pool.py"}


def test_installed_flower_looks_as_expected() -> None:
    flower.check()
    assert flower.differences() == []


def test_a_changed_flower_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def push_objects(objects: object, target: object) -> None: ...

    looks = [(push_objects if f.__name__ == "push_objects" else f, e) for f, e in flower._LOOKS]
    monkeypatch.setattr(flower, "_LOOKS", looks)
    with pytest.raises(RunError, match=r"push_objects\(objects target\)"):
        flower.check()


def test_a_lost_field_of_a_message_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower, "_FIELDS", ((flower.ActivateNodeRequest, "public_key colour"),))
    with pytest.raises(RunError, match="ActivateNodeRequest lacks colour"):
        flower.check()


@pytest.mark.parametrize("other", ["1.40.0", "1.43.0", "2.0.0"])
def test_another_version_is_refused(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower, "version", lambda name: other)
    with pytest.raises(RunError, match=rf"Flower {re.escape(other)} is installed; Calyx needs"):
        flower.check()


def test_the_package_asks_for_the_versions_that_are_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"flwr{flower.RANGE}" in project["dependencies"]
    assert version("flwr") in {
        line.partition("==")[2] for line in (ROOT / "constraints.txt").read_text().splitlines()
    }


def test_the_pause_before_a_second_look_is_cut_where_flowers_grid_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Flower's grid names no pause, so it takes the default, which costs a second a round."""
    looked_up = sys.modules[flower.HttpGrid.__module__].__dict__["pull_objects"]
    assert looked_up is flower.inflatable_utils.pull_objects
    for name, flowers_own in (("initial_backoff", 1), ("max_time", 7200), ("backoff_cap", 10)):
        monkeypatch.setitem(looked_up.__kwdefaults__, name, flowers_own)
    flower.server_grid(
        "127.0.0.1:1", b"", "token", "secret", lambda m: None, lambda: SizeGuard(1, "")
    )
    defaults = {n: p.default for n, p in signature(looked_up).parameters.items()}
    assert defaults["initial_backoff"] == flower.FIRST_LOOK_S
    assert defaults["max_time"] == flower.UPLOAD_S


def test_internals_of_flower_are_imported_in_one_module_only() -> None:
    found = set()
    for package in ("shared", "client", "server", "authority", "simulations", "cli", "bench"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            for module in re.findall(
                r"^\s*(?:from|import)\s+(flwr(?:\.[\w.]+)?)\s", text, re.MULTILINE
            ):
                if not re.match(PUBLIC, module):
                    found.add(path.relative_to(ROOT).as_posix())
    assert found == {"shared/protocol/flower/internals.py", *ENGINE}
