"""Epsilon, delta and odds become text in one module, which never rounds a guarantee down."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("audit", "authority", "bench", "cli", "client", "server", "shared", "simulations")
THE_ONE = ROOT / "shared" / "privacy" / "epsilon_text.py"
# An expression that is one of them, or words in front of it that say so.
NAMES = re.compile(r"\b(\w*epsilons?|\w*delta|odds|gdp_mu|delta_times_units)\b(?!_)", re.IGNORECASE)
WORDS = re.compile(r"(ε|δ|epsilon|delta|odds|μ)( of)?( at least| at most)?\s*[=≤≥]?\s*$", re.I)
IN_TEMPLATES = re.compile(r"\.(\w*(?:epsilon|delta|gdp_mu|ceiling)\w*)(?:\s*\|\s*(\w+))?")
ROUNDS_RIGHT = {"epsilon", "bound", "promise", "up"}


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py")


def formatted_otherwise(source: str) -> list[str]:
    """Places that give epsilon or delta a number of digits by themselves."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            before = ""
            for part in node.values:
                if isinstance(part, ast.Constant):
                    before = str(part.value)
                    continue
                assert isinstance(part, ast.FormattedValue)
                spec = part.format_spec
                digits = spec is not None and re.search(r"[efgn%]\W*$", ast.unparse(spec))
                expression = ast.unparse(part.value)
                if digits and (NAMES.search(expression) or WORDS.search(before)):
                    found.append(f"line {node.lineno}: {before}{{{expression}}}")
                before = ""
        is_rounding = isinstance(node, ast.Call) and (
            (isinstance(node.func, ast.Name) and node.func.id in ("round", "format"))
            or (isinstance(node.func, ast.Attribute) and node.func.attr == "format")
        )
        if is_rounding and NAMES.search(ast.unparse(node)):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


def test_no_other_module_formats_epsilon_or_delta() -> None:
    found = {
        str(path.relative_to(ROOT)): places
        for path in sources()
        if path != THE_ONE and (places := formatted_otherwise(path.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_templates_print_epsilon_and_delta_through_that_module() -> None:
    found = []
    for path in (ROOT / "audit" / "report" / "templates").glob("*.j2"):
        # Conditions print nothing.
        text = re.sub(r"\bif [\w.]+( is not none)?|\{% .*? %\}", "", path.read_text("utf-8"))
        found += [f"{path.name}: {m[0]}" for m in IN_TEMPLATES.finditer(text)]
    assert len(found) > 6
    assert [place for place in found if place.split("|")[-1].strip() not in ROUNDS_RIGHT] == []


@pytest.mark.parametrize(
    "source",
    [
        'f"{epsilon:.2f}"',
        'f"{run.delta:g}"',
        'f"{found.odds:,.1f}"',
        'f"ε = {x:.3f}"',
        'f"δ = {x:g}"',
        'f"an epsilon of {x:.1f}"',
        "round(spent.epsilon, 2)",
        '"{:.2f}".format(epsilon)',
        'f"{lines[0].epsilons[-1]:.2f}"',
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert formatted_otherwise(source)


@pytest.mark.parametrize(
    "source", ['f"{epsilon_text(epsilon)}"', 'f"{accuracy:.2f}"', 'f"ε = {x}, {share:.1f} %"']
)
def test_the_search_lets_the_rest_pass(source: str) -> None:
    assert not formatted_otherwise(source)
