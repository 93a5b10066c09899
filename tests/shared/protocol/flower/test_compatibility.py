"""Flower is what the code that touches its internals was made for."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from flwr.proto.fleet_pb2 import ActivateNodeRequest

from calyx.shared.errors import RunError
from calyx.shared.protocol.flower import compatibility

ROOT = Path(__file__).resolve().parents[4]


def test_installed_flower_looks_as_expected() -> None:
    compatibility.check_flower()
    assert compatibility.differences() == []


def test_a_changed_flower_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def push_objects(objects: object, target: object) -> None: ...

    looks = [
        (push_objects if f.__name__ == "push_objects" else f, e) for f, e in compatibility._LOOKS
    ]
    monkeypatch.setattr(compatibility, "_LOOKS", looks)
    with pytest.raises(RunError, match=r"push_objects\(objects target\)"):
        compatibility.check_flower()


def test_a_lost_field_of_a_message_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compatibility, "_FIELDS", ((ActivateNodeRequest, "public_key colour"),))
    with pytest.raises(RunError, match="ActivateNodeRequest lacks colour"):
        compatibility.check_flower()


@pytest.mark.parametrize("other", ["1.40.0", "1.43.0", "2.0.0"])
def test_another_version_is_refused(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compatibility, "version", lambda name: other)
    with pytest.raises(RunError, match=rf"Flower {re.escape(other)} is installed; Calyx needs"):
        compatibility.check_flower()


def test_the_package_asks_for_the_versions_that_are_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"flwr{compatibility.RANGE}" in project["dependencies"]
    assert version("flwr") in {
        line.partition("==")[2] for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
