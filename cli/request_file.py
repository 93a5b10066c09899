"""Reading an enrolment request that somebody sent."""

from __future__ import annotations

from pathlib import Path

from shared.errors import ConfigError


def request_text(path: Path) -> str:
    """The text of an enrolment request.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(
            f"{path} cannot be read: {reason}; name the file request.json of the device"
        ) from None
