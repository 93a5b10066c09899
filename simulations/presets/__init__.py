"""Presets: whole runs with the reason for each value, and how to read them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from calyx.shared.config import Config
from calyx.shared.config.load import Scalar, Settings, build, from_settings, from_toml
from calyx.shared.errors import ConfigError
from calyx.simulations.own_code import reach, task_settings

DEFAULT = "digits-cnn"


def preset_names() -> list[str]:
    """Names of all presets that come with Calyx, sorted."""
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in files(__name__).iterdir()
        if entry.name.endswith(".toml")
    )


def describe(name: str) -> str:
    """The preset's first comment line: what it is for."""
    first = (files(__name__) / f"{name}.toml").read_text(encoding="utf-8").splitlines()[0]
    return first.lstrip("# ").rstrip()


def load_preset(preset: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a preset by name, or a TOML file by path, as nested settings.

    Args:
        preset: a name, or a path as text that ends in ``.toml`` or has a slash; a path object is
            always a path. ``~`` is the user's home.

    Raises:
        ConfigError: there is no such preset or file (the nearest name is suggested), or it is
            not valid TOML.
    """
    path = Path(preset)
    if isinstance(preset, str) and path.suffix != ".toml" and "/" not in preset:
        return _named(preset)
    path = path.expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(
            f"{path} cannot be read: {reason}",
            hint="give the name of a preset or a TOML file",
        ) from None
    return {"name": path.stem, **from_toml(text, where=str(path))}


def _named(name: str) -> dict[str, Any]:
    if name not in preset_names():
        close = get_close_matches(name, preset_names(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(preset_names())}"
        raise ConfigError(f"there is no preset {name!r}", hint=hint)
    text = (files(__name__) / f"{name}.toml").read_text(encoding="utf-8")
    return {"name": name, **from_toml(text, where=f"preset {name}")}


def resolve(
    preset: str | os.PathLike[str],
    settings: Settings = (),
    data_dir: str | os.PathLike[str] | None = None,
    *,
    shorthands: Mapping[str, Scalar | None] | None = None,
    task: str | None = None,
) -> Config:
    """Merge into one validated config; what comes later here wins.

    Args:
        preset: name of a preset or path of a TOML file.
        settings: ``["key=value"]`` or ``{"key": value}``, with dotted keys.
        shorthands: settings that have a parameter or an option of their own; None is not given.
        data_dir: folder of the data, ``data.directory``.
        task: a task of the user's own as ``module:object``, with its records and model.

    Raises:
        ConfigError: with every fault.
        ModelError: there is no such task.
    """
    given = {key: value for key, value in (shorthands or {}).items() if value is not None}
    own = [] if task is None else [task_settings(task)]
    layers = [load_preset(preset), *own, from_settings(settings), from_settings(given)]
    if data_dir is not None:
        layers.append(in_folder(data_dir))
    return reach(_with_start_hashed(build(*layers)))


def _with_start_hashed(config: Config) -> Config:
    """The configuration with the hash of the weights it starts from."""
    training = config.training
    if not training.start:
        return config
    from calyx.shared.models.start import start_file, start_sha256

    found = {"start": str(start_file(training.start)), "start_sha256": start_sha256(training.start)}
    return build(config.model_dump(), {"training": found})


def in_folder(data_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """The setting that says where the data lie, whatever folder a later command starts in."""
    return {"data": {"directory": str(Path(data_dir).expanduser().absolute())}}
