"""Code of the user's own that a run names: where it is found, and what a task of it brings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from calyx.shared.config import Config


def make_reachable() -> None:
    """Let modules in the current folder be found, after everything that is installed.

    A command is no script: Python would look beside the command itself and not where the user is.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)


def reach(config: Config) -> Config:
    """The same configuration; what it names of the user's own can be imported from now on."""
    if config.task.is_own or ":" in config.model.name:
        make_reachable()
    return config


def task_settings(name: str) -> dict[str, Any]:
    """The settings of a run whose task is ``module:object``: its records and model, if it has them.

    Raises:
        ModelError: it cannot be imported, or is no task.
    """
    from calyx.shared.tasks.find import own_task

    make_reachable()
    task = own_task(name)
    settings: dict[str, Any] = {"name": name.partition(":")[0], "task": {"kind": name}}
    if task.records is not None:
        settings["data"] = {"source": "task", "view": "stored"}
    if task.model is not None:
        settings["model"] = {"name": "task"}
    return settings
