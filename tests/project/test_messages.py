"""What errors say: a message is one line of what is wrong, and what to do is in its hint."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from calyx.shared import errors

ROOT = Path(__file__).parents[2]
PACKAGES = ("server", "client", "shared", "authority", "simulations", "audit", "cli")

# Verbs that begin an instruction to the user.
_VERBS = (
    "add|approve|ask|audit|change|check|choose|clip|compare|compute|correct|delete|discard|do|end|"
    "enrol|export|fetch|find|finish|fix|free|get|give|go|have|install|keep|leave|let|look|lower|"
    "make|mend|move|name|number|pass|put|raise|read|remove|rename|repair|restore|resume|revoke|run|"
    "save|see|serve|set|start|stop|store|take|tell|try|update|use|wait|write"
)
_INSTRUCTION = re.compile(rf"[;:,] (?:and |please )?(?:{_VERBS}) ")
# Messages in which such a word is no instruction.
_ALLOWED: frozenset[str] = frozenset()
_STILTED = re.compile(r"\b(whoever|nobody|somebody|anybody|anew|so many)\b", re.IGNORECASE)


def _error_names() -> frozenset[str]:
    """Every class of errors raised on purpose, with those that modules make for themselves."""
    names = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    names = {name for name in names if issubclass(getattr(errors, name), errors.CalyxError)}
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for _, tree in _modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    while more := {name for name, of in bases.items() if of & names and name not in names}:
        names |= more
    return frozenset(names)


@cache
def _modules() -> list[tuple[str, ast.Module]]:
    return list(_parsed())


def _parsed() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "_pb2" not in path.name:
                yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def _texts(node: ast.expr) -> Iterator[str]:
    """The literal text of an expression, with an ellipsis for what is filled in."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts
            )
        case ast.IfExp(body=one, orelse=other):
            yield from _texts(one)
            yield from _texts(other)
        case _:
            pass


def _said() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Messages and hints of all errors that the product makes, each with its place."""
    names, messages, hints = _error_names(), [], []
    for where, tree in _modules():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = (
                node.func.id
                if isinstance(node.func, ast.Name)
                else node.func.attr
                if isinstance(node.func, ast.Attribute)
                else ""
            )
            place = f"{where}:{node.lineno}"
            if name == "Fault":
                messages += [(place, text) for arg in node.args[2:3] for text in _texts(arg)]
                hints += [(place, text) for arg in node.args[3:4] for text in _texts(arg)]
            elif name in names or name in ("error", "BadParameter"):
                messages += [(place, text) for arg in node.args[:1] for text in _texts(arg)]
            hints += [
                (place, text)
                for word in node.keywords
                if word.arg == "hint"
                for text in _texts(word.value)
            ]
    return messages, hints


MESSAGES, HINTS = _said()


def _wrong(text: str) -> str:
    if "\n" in text:
        return "more than one line"
    if re.search(r"(?<!\.\.)\.$", text):
        return "a full stop at its end"
    if _STILTED.search(text):
        return "a stilted word"
    return ""


def test_the_errors_of_the_product_are_found() -> None:
    assert len(MESSAGES) > 500
    assert len(HINTS) > 200


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("the key is damaged\nhint: restore it", True),
        ("no such folder: give another one", True),
        ("the sum is too long; no step was taken", False),
        ("the reply holds NaN", False),
    ],
)
def test_an_instruction_within_a_message_is_recognised(text: str, wrong: bool) -> None:
    assert bool(_INSTRUCTION.search(text + " ")) is wrong


def test_no_message_tells_the_user_what_to_do_for_that_is_what_hints_are_for() -> None:
    found = [
        f"{place}: {text}"
        for place, text in MESSAGES
        if _INSTRUCTION.search(text + " ") and text not in _ALLOWED
    ]
    assert found == []


def test_every_message_is_one_line_of_plain_words_without_a_full_stop() -> None:
    assert [f"{place}: {text}" for place, text in MESSAGES if _wrong(text)] == []


def test_every_hint_is_one_line_of_plain_words_without_a_full_stop() -> None:
    assert [f"{place}: {text}" for place, text in HINTS if _wrong(text)] == []
