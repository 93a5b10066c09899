"""The map of the project in ARCHITECTURE.md has every module, each under its own package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("cli", "simulations", "server", "client", "authority", "shared", "audit", "bench")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_is_on_the_map(package: str) -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    part = re.search(rf"^{package}/ .*\n(?: .*\n|\n(?= ))*", text, re.MULTILINE)
    assert part is not None
    modules = {
        path.stem
        for path in (ROOT / package).rglob("*.py")
        if not path.stem.startswith("__") and "_pb2" not in path.stem
    }
    assert not modules - set(re.findall(r"\w+", part[0]))
