"""Comments, docstrings and texts of the code, and the report's templates, use plain words."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    "audit",
    "authority",
    "bench",
    "cli",
    "client",
    "examples",
    "server",
    "shared",
    "simulations",
    "tests",
)
ODD = re.compile(
    r"\b(who(?:m|so)?ever|nobody|anybody|somebody|everybody|anew|so\s+many|the\s+very\s+same)\b",
    re.IGNORECASE,
)
# Python 3.12 splits f-strings into tokens of their own.
TEXT = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
# Names in results, which readers of earlier results compare.
NAMES = {"a dither that everybody knows"}
# Tests that have the words as their subject.
ABOUT_WORDS = {"tests/project/test_documents.py", "tests/project/test_messages.py"}
ABOUT_WORDS |= {"tests/project/test_prose.py"}


def _is_written(path: Path) -> bool:
    return "_pb2" not in path.name and str(path.relative_to(ROOT)) not in ABOUT_WORDS


def _texts(source: str) -> Iterator[tuple[int, str]]:
    """Line number and text of each comment and of each string that is more than one word."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        text = token.string.strip()
        if token.type in TEXT and " " in text and text.strip("\"'") not in NAMES:
            # Code that prose quotes may have such a word as its name.
            yield token.start[0], re.sub(r"`[^`\n]+`", "", token.string)


def _odd(source: str) -> list[str]:
    return [
        f"{number + text.count(chr(10), 0, found.start())}: {found[0]}"
        for number, text in _texts(source)
        for found in ODD.finditer(text)
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_code_is_described_in_plain_words(folder: str) -> None:
    paths = [path for path in sorted((ROOT / folder).rglob("*.py")) if _is_written(path)]
    assert paths
    found = {
        str(path.relative_to(ROOT)): odd
        for path in paths
        if (odd := _odd(path.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_the_report_uses_plain_words() -> None:
    templates = sorted((ROOT / "audit" / "report" / "templates").glob("*.j2"))
    assert templates
    assert [odd for path in templates for odd in ODD.findall(path.read_text("utf-8"))] == []


@pytest.mark.parametrize(
    "source",
    [
        '"""Made anew."""',
        "x = 1  # nobody asks",
        "print('whoever reads it')",
        "print(f'{x} for so many clients')",
        '"""A sentence with so\n    many words."""',
    ],
)
def test_an_odd_word_is_found(source: str) -> None:
    assert len(_odd(source)) == 1


@pytest.mark.parametrize(
    "source", ["store.anew(path)", "name = 'nobody'", '"""See `anew`."""', "x = 1  # anyone"]
)
def test_names_and_data_are_not_prose(source: str) -> None:
    assert _odd(source) == []
