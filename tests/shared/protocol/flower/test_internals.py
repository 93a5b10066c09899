"""Internals of Flower are touched in one folder only."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
FOLDER = Path("shared/protocol/flower")
PUBLIC = r"flwr\.(app|serverapp|clientapp|simulation)\b"
# The local engine plays Flower's runtime in process: it names four more things (ADR 0003).
ENGINE = {"simulations/engines/grid.py", "simulations/engines/pool.py"}


def test_internals_of_flower_are_imported_in_one_folder_only() -> None:
    found = set()
    for package in ("shared", "client", "server", "authority", "simulations", "cli", "bench"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            for module in re.findall(
                r"^\s*(?:from|import)\s+(flwr(?:\.[\w.]+)?)\s", text, re.MULTILINE
            ):
                if not re.match(PUBLIC, module):
                    found.add(path.relative_to(ROOT))
    inside = {path for path in found if path.parent == FOLDER}
    assert inside and {path.as_posix() for path in found - inside} == ENGINE
