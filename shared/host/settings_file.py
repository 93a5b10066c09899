"""A TOML file with the settings of one party, written for its operator to edit."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from calyx.shared.config.load import faults_of
from calyx.shared.errors import ConfigError, UsageError

_Settings = TypeVar("_Settings", bound=BaseModel)


def made_settings(kind: type[_Settings], values: Mapping[str, Any]) -> _Settings:
    """Settings that a command was given.

    Raises:
        ConfigError: they cannot be used; all faults are listed.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError("settings cannot be used", faults_of(error, kind)) from None


def read_settings(path: Path, kind: type[_Settings], absent: str, hint: str) -> _Settings:
    """Read and check the file.

    Args:
        path: of the file.
        kind: what it must hold.
        absent: what to say where there is no such file.
        hint: what to do then.

    Raises:
        UsageError: there is none.
        ConfigError: it cannot be used; all faults are listed.
    """
    try:
        return kind.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except FileNotFoundError:
        raise UsageError(absent, hint=hint) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {' '.join(str(error).split())}",
            hint="correct it or restore it from a copy",
        ) from None
    except ValidationError as error:
        raise ConfigError(
            f"{path} is not usable",
            faults_of(error, kind),
            hint="correct these lines of the file",
        ) from None
