"""``calyx data``: what is in a folder or file, before anything is trained on it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calyx.cli.arguments.help_text import help_text
from calyx.cli.arguments.options import AsJson, Settings, Verbose

if TYPE_CHECKING:
    from rich.text import Text

    from calyx.cli.terminal.console import Terminal
    from calyx.shared.data.inspection import Inspection

_GROUP = """Look at your own records before anything is trained on them.

[bold]Examples[/bold]
calyx data inspect patients.csv
"""

app = typer.Typer(no_args_is_help=True, help=help_text(_GROUP))

_SHOWN = 12
_BAR_WIDTH = 30
# Clients and records of each, where the source has no clients of its own.
_CLIENTS, _RECORDS_EACH = 10, 20
# Fewer have no sum that hides them; more make a first run long.
_LEAST_CLIENTS, _MOST_CLIENTS = 3, 50
# Presets whose model may fit, the more exact one first.
_Ways = tuple[tuple[str, Mapping[str, str]], ...]
_WAYS: _Ways = (
    ("digits-cnn", {}),
    ("digits-cnn", {"data.colour": "grey"}),
    ("digits-lstm", {}),
)
_TABLE_WAYS: Mapping[str, _Ways] = {
    "class": (("table-mlp", {}),),
    "real": (("table-mlp", {"task.kind": "regression"}),),
    "several": (("table-mlp", {"task.kind": "multilabel"}),),
}
_TEXT_WAYS: Mapping[str, _Ways] = {
    "class": (("sentiment-lstm", {"data.classes": ""}),),
    "itself": (("shakespeare-lstm", {"federation.clients_per_round": "0"}),),
}


def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH")],
    settings: Settings = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Show what a file or folder holds, what is wrong with it, and the settings that read it.

    Takes CSV, Parquet, PNG and JPEG, WAV, sensor logs, text, IDX or NPZ, also in a tar archive.
    What is not given with --set data.KEY=VALUE is guessed; look at the guesses before you use them.

    It runs on your machine, sends nothing and keeps nothing. The counts it prints are exact and
    under no privacy protection: they are for the owner of the records, so do not pass them on.

    [bold]Examples[/bold]
    calyx data inspect patients.csv
    calyx data inspect recordings.tar.xz \\
        --set 'data.name_pattern={label}_{client}_{index}.wav'
    calyx data inspect ~/pictures --json
    """
    from calyx.cli.terminal.console import terminal

    with terminal(as_json=as_json, verbose=verbose) as screen:
        with screen.busy("reading the records"):
            from calyx.shared.data.inspection import inspect as look

            found = look(str(path), _given(settings or ()))
            command = _command(found, path)
        _show(screen, found)
        if command:
            screen.line()
            screen.line("to train on it:", style="bold")
            screen.line(command)
        screen.emit(found.as_dict() | {"command": command or None})


app.command(help=help_text(inspect))(inspect)


def _given(settings: Sequence[str]) -> dict[str, Any]:
    from calyx.shared.config.load import from_settings
    from calyx.shared.errors import ConfigError, Fault

    nested = from_settings(settings)
    data = nested.pop("data", {})
    if nested or not isinstance(data, dict):
        key = next(iter(nested), "data")
        raise ConfigError(
            "settings cannot be used",
            [
                Fault(
                    key,
                    "''",
                    "not a setting of data",
                    "give only settings of data, as data.label=NAME",
                )
            ],
        )
    return data


def _show(screen: Terminal, found: Inspection) -> None:
    from calyx.cli.terminal.console import facts
    from calyx.cli.terminal.formatting import count_text, percent_text

    screen.line(found.place, style="bold")
    shape = " x ".join(map(str, found.shape))
    tests = f", {found.test_records:,} of them for testing" if found.test_records else ""
    rows: dict[str, str | Text] = {
        "kind": _kind(found),
        "records": f"{found.records:,}{tests}",
        "shape": f"{shape} ({'tokens' if found.kind == 'text' else 'values'} a record)",
        "values": f"{found.low:g} to {found.high:g}",
    }
    if found.label_kind == "class":
        rows["balance"] = f"the most frequent class has {percent_text(found.majority)}"
    if found.clients:
        rows["clients"] = count_text(len(found.clients), "client")
    screen.show(facts(rows))
    for title, counts in (("classes", found.classes), ("clients", found.clients)):
        _chart(screen, title, counts)
    _sentences(screen, "what was done", found.done)
    _sentences(
        screen, "settings", [f"data.{key} = {value}" for key, value in found.settings.items()]
    )
    screen.line()
    for problem in found.problems:
        screen.warn(problem)
    if not found.problems:
        screen.line("nothing looks wrong")


def _kind(found: Inspection) -> str:
    labels = {
        "class": "one class a record",
        "several": "several labels a record",
        "real": "a number a record",
        "itself": "text that predicts itself",
    }
    return f"{found.kind}, {labels[found.label_kind]}"


def _sentences(screen: Terminal, title: str, sentences: Sequence[str]) -> None:
    if not sentences:
        return
    screen.line()
    screen.line(title, style="bold")
    for sentence in sentences:
        screen.line(f"  {sentence}")


def _chart(screen: Terminal, title: str, counts: Mapping[str, int]) -> None:
    from calyx.cli.terminal.chart import bar
    from calyx.cli.terminal.console import table, whole

    if not counts:
        return
    screen.line()
    made = table(title, "records", "", right=("records",))
    top = max(max(counts.values()), 1)
    for name, number in list(counts.items())[:_SHOWN]:
        made.add_row(whole(name), f"{number:,}", bar(number, _BAR_WIDTH, top))
    screen.show(made)
    if len(counts) > _SHOWN:
        screen.line(f"{_SHOWN} of {len(counts):,}; --json lists all")


def _command(found: Inspection, path: Path) -> str:
    """A line that trains on these records, with a model that takes them; empty if there is none."""
    from calyx.shared.errors import ModelError

    place = path.expanduser().absolute()
    ways = {"table": _TABLE_WAYS, "text": _TEXT_WAYS}.get(found.kind)
    for preset, more in _WAYS if ways is None else ways.get(found.label_kind, ()):
        if "data.colour" in more and found.kind != "images":
            continue
        settings = {**_settings(found, preset), **more}
        try:
            _try(preset, settings, place)
        except ModelError:
            continue
        words = ["calyx", "simulate", preset, "--data-dir", str(path)]
        for key, value in settings.items():
            words += ["--set", f"{key}={value}"]
        return shlex.join(words)
    return ""


def _settings(found: Inspection, preset: str) -> dict[str, str]:
    settings = {f"data.{key}": str(value) for key, value in found.settings.items()}
    if found.kind not in ("table", "text"):
        settings["data.view"] = "image" if preset.endswith("cnn") else "sequence"
    records = found.records - found.test_records
    if not found.test_records:
        records = math.floor(0.8 * records)
    natural = found.settings.get("partition") == "natural"
    if natural and len(found.clients) >= _LEAST_CLIENTS:
        clients = min(len(found.clients), _MOST_CLIENTS)
        if found.kind in ("sensors", "text") and not found.test_records:
            clients = max(math.floor(0.7 * clients), 1)  # whole subjects are held out
    else:
        settings.pop("data.partition", None)
        clients = max(min(_CLIENTS, records // _RECORDS_EACH), _LEAST_CLIENTS)
    settings["federation.clients"] = str(clients)
    settings["secure_aggregation.min_contributors"] = str(max(math.ceil(0.8 * clients), 2))
    # A power of ten below one over the number of records.
    settings["privacy.delta"] = f"1e-{max(len(str(records)), 4)}"
    return settings


def _try(preset: str, settings: Mapping[str, str], place: Path) -> None:
    """See that the model takes the records, which are read and divided as the run would.

    Raises:
        ModelError: it does not.
        CalyxError: the run would fail for another reason.
    """
    from calyx.shared.data import load_split, partition
    from calyx.shared.errors import DataError, ModelError
    from calyx.shared.models.tryout import try_model
    from calyx.simulations.presets import resolve

    config = resolve(preset, [f"{key}={value}" for key, value in settings.items()], place)
    try:
        train = load_split(config.data, config.seed, config.task).train
        partition(train, config.data, config.federation.clients, config.seed)
    except DataError as error:
        if "data.view=sequence" in error.hint:
            raise ModelError(str(error), hint=error.hint) from None
        raise
    try_model(config, train.spec)
