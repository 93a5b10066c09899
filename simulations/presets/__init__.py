"""Presets: whole runs with the reason for each value, and how to read them."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from calyx.shared.config import Config
from calyx.shared.config.load import build, from_settings, from_toml
from calyx.shared.errors import ConfigError

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


def load_preset(name_or_path: str) -> dict[str, Any]:
    """Read a preset by name, or a TOML file by path, as nested settings.

    Raises:
        ConfigError: there is no such preset or file (the nearest name is suggested), or it is
            not valid TOML.
    """
    if name_or_path in preset_names():
        text = (files(__name__) / f"{name_or_path}.toml").read_text(encoding="utf-8")
        return {"name": name_or_path, **from_toml(text, where=f"preset {name_or_path}")}
    path = Path(name_or_path)
    if path.suffix != ".toml" and "/" not in name_or_path:
        close = get_close_matches(name_or_path, preset_names(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(preset_names())}"
        raise ConfigError(f"there is no preset {name_or_path!r}", hint=hint)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(
            f"{path} cannot be read: {reason}",
            hint="give the name of a preset or a TOML file",
        ) from None
    return {"name": path.stem, **from_toml(text, where=str(path))}


def resolve(preset: str, settings: Sequence[str] = (), data_dir: Path | None = None) -> Config:
    """Merge preset, ``key=value`` settings and the data folder into one validated config."""
    layers = [load_preset(preset), from_settings(settings)]
    if data_dir is not None:
        layers.append({"data": {"directory": str(data_dir.expanduser().absolute())}})
    return build(*layers)
