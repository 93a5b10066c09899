"""The map of the project in ARCHITECTURE.md shows what is there, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("cli", "simulations", "server", "client", "authority", "shared", "audit", "bench")


def test_every_module_is_on_the_map() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    layout = re.search(r"```\n(cli/ .*?)```", text, re.DOTALL)
    assert layout is not None
    named = set(re.findall(r"\w+", layout[1]))
    modules = {
        path.stem
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if not path.stem.startswith("__") and "_pb2" not in path.stem
    }
    assert not modules - named
