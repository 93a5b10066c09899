"""Write the tables of the documents that restate code: ``make docs``.

A document says where a table goes, and everything between the two lines is replaced::

    <!-- generated: presets -->
    <!-- end of generated text -->

``python docs/generate.py --check`` changes nothing, names the documents that are not current and
ends with 1 if there is one. The names of the tables are the keys of `TABLES`.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import annotated_types
import click
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from calyx.cli.main import app
from calyx.client import node
from calyx.client.policy import Policy
from calyx.server import run_settings
from calyx.shared.config.schema import Sections
from calyx.simulations.presets import DEFAULT, describe, preset_names

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- generated: ([^>]+) -->\n).*?(<!-- end of generated text -->)", re.DOTALL)
ON_EVERY_COMMAND = "--json", "--verbose"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """A table in Markdown."""
    titles = list(head)
    for row in (titles, ["---"] * len(titles), *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def configuration_keys(section: str) -> Iterator[str]:
    """Keys of one section of the schema; of ``run``, those outside all sections."""
    inner = Sections.model_fields[section].annotation if section != "run" else Sections
    assert isinstance(inner, type) and issubclass(inner, BaseModel)
    prefix = "" if section == "run" else f"{section}."
    rows = (
        (f"`{prefix}{name}`", allowed(field), f"`{toml(field.default)}`", field.description or "")
        for name, field in inner.model_fields.items()
        if not isinstance(field.default, BaseModel)
    )
    return table(("Key", "Allowed", "Default", "Meaning"), rows)


def policy_keys() -> Iterator[str]:
    """Keys of a device's policy; one without a default must be there."""
    rows = []
    for section, outer in Policy.model_fields.items():
        assert isinstance(outer.annotation, type) and issubclass(outer.annotation, BaseModel)
        for name, field in outer.annotation.model_fields.items():
            default = "required" if field.is_required() else f"`{toml(field.default)}`"
            rows.append((f"`{section}.{name}`", default, field.description or ""))
    return table(("Key", "Default", "Meaning"), rows)


def node_settings() -> Iterator[str]:
    """Settings of one machine, by the party that reads them."""
    settings = (*node.SETTINGS, *run_settings.SETTINGS)
    return table(("Setting", "On", "Meaning"), ((f"`{s.name}`", s.on, s.meaning) for s in settings))


def import_contracts() -> Iterator[str]:
    """Names of the contracts that import-linter checks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for number, contract in enumerate(project["tool"]["importlinter"]["contracts"], 1):
        yield f"{number}. {contract['name']}"


def presets() -> Iterator[str]:
    """Names of the presets, and what each is for."""
    return table(
        ("Preset", "What it is"),
        (
            (f"`{name}`" + (" (the default)" if name == DEFAULT else ""), describe(name))
            for name in preset_names()
        ),
    )


def commands() -> Iterator[str]:
    """Every command, and what it does."""
    rows = ((f"`{usage(path, command)}`", summary(command)) for path, command in all_commands())
    return table(("Command", "What it does"), rows)


def command_options() -> Iterator[str]:
    """Every command's options."""
    for path, command in all_commands():
        options = [
            p
            for p in command.params
            if isinstance(p, click.Option) and not p.hidden and p.opts[-1] not in ON_EVERY_COMMAND
        ]
        if not options:
            continue
        yield f"### `{path}`"
        yield ""
        yield from table(
            ("Option", "Default", "Meaning"),
            ((f"`{spelt(o)}`", default(o), " ".join((o.help or "").split())) for o in options),
        )
        yield ""


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "presets": presets,
    "node settings": node_settings,
    "import contracts": import_contracts,
    "policy keys": policy_keys,
    "commands": commands,
    "command options": command_options,
    **{
        f"configuration keys: {section}": partial(configuration_keys, section)
        for section in ("run", "data", "task", "model", "training", "federation", "privacy")
    },
    "configuration keys: secure_aggregation": partial(configuration_keys, "secure_aggregation"),
}


def allowed(field: FieldInfo) -> str:
    """Type and range of a key, in words."""
    if choices := get_args(field.annotation):
        return ", ".join(f"`{choice}`" for choice in choices)
    kinds: dict[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}
    low, high = "", ""
    for limit in field.metadata:
        match limit:
            case annotated_types.Ge(bound):
                low = f"{number(bound)} ≤"
            case annotated_types.Gt(bound):
                low = f"{number(bound)} <"
            case annotated_types.Le(bound):
                high = f"≤ {number(bound)}"
            case annotated_types.Lt(bound):
                high = f"< {number(bound)}"
    kind = kinds[field.annotation]
    if low and not high:
        bound, sign = low.split()
        return f"{kind} {'≥' if sign == '≤' else '>'} {bound}"
    return f"{kind}, {low} x {high}" if low else kind


def number(bound: Any) -> str:
    """A bound; large powers of two as such."""
    if isinstance(bound, int) and bound > 2**32:
        return f"2^{bound.bit_length() - 1}"
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def toml(value: Any) -> str:
    """A default as it would be written in a file."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case None:
            return "no limit"
        case tuple():
            return f"[{', '.join(toml(item) for item in value)}]"
    return str(value)


def all_commands() -> Iterator[tuple[str, click.Command]]:
    """Each command that does something, by the words that call it."""

    def below(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        if not isinstance(command, click.Group):
            yield path, command
            return
        for name, inner in command.commands.items():
            if not inner.hidden:
                yield from below(f"{path} {name}", inner)

    yield from below("calyx", typer.main.get_command(app))


def summary(command: click.Command) -> str:
    """First sentence of a command's help."""
    return re.sub(r"\[/?bold\]", "", (command.help or "").split("\n\n")[0])


def usage(path: str, command: click.Command) -> str:
    """The command with its arguments."""
    words = [
        p.metavar or (p.name or "").upper() for p in command.params if isinstance(p, click.Argument)
    ]
    return " ".join([path, *words])


def spelt(option: click.Option) -> str:
    """An option as it is typed, with its value."""
    names = "/".join([*option.opts, *option.secondary_opts])
    if option.is_flag:
        return names
    kind = option.type
    choices = "|".join(map(str, kind.choices)) if isinstance(kind, click.Choice) else ""
    return f"{names} {option.metavar or choices or kind.name.upper()}"


def default(option: click.Option) -> str:
    """What holds where the option is left out."""
    if isinstance(option.show_default, str):
        return option.show_default
    if option.is_flag:
        return option.opts[0] if option.default and option.secondary_opts else ""
    return "" if option.default in (None, "") else f"`{option.default}`"


def renewed(text: str) -> str:
    """The text of a document with its tables written again."""

    def block(found: re.Match[str]) -> str:
        lines = "\n".join(TABLES[found[2]]()).rstrip("\n")
        return f"{found[1]}\n{lines}\n\n{found[3]}"

    return BLOCK.sub(block, text)


def main() -> int:
    """Renew all documents, or say which are not current."""
    stale = []
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]):
        text = path.read_text(encoding="utf-8")
        if (new := renewed(text)) != text:
            stale.append(path.relative_to(ROOT))
            if "--check" not in sys.argv:
                path.write_text(new, encoding="utf-8")
    for name in stale:
        state = "is not current; run: make docs" if "--check" in sys.argv else "written"
        sys.stdout.write(f"{name} {state}\n")
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
