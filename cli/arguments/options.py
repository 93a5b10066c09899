"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Preset = Annotated[
    str, typer.Argument(metavar="[PRESET|FILE.toml]", help="A preset, or a file of your own.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; repeatable."),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="PATH", help="Folder or file with the records."),
]
OwnTask = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="MODULE:OBJECT",
        help="A task of your own: its records, model, loss and metrics.",
    ),
]
Start = Annotated[
    Path | None,
    typer.Option("--from", metavar="FILE|RUN", help="Weights or a run to start from."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Show tracebacks and the output of libraries.")
]
