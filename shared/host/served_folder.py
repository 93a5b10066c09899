"""The folder of a party that one process at a time serves: a server, a device, a key authority."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from calyx.shared.host.private_files import replace_file
from calyx.shared.host.process_lock import exclusive, holder, stop_holder


class ServedFolder:
    """A folder with the lock of the process that serves it.

    Args:
        directory: of the party.
        taken: what to say where another process serves it already.
        hint: what to do then.
        log: where to look if that process does not stop.
    """

    def __init__(self, directory: Path, *, taken: str, hint: str, log: Path) -> None:
        self.directory = directory
        self.lock_path = directory / "lock"
        self._taken, self._hint, self._log = taken, hint, log

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the folder for the one process that serves it.

        Raises:
            UsageError: another process has it.
        """
        return exclusive(self.lock_path, self._taken, self._hint)

    def running_pid(self) -> int | None:
        """The process that serves it now, None if none does."""
        return holder(self.lock_path)

    def stop_running(self, timeout_s: float) -> bool:
        """Tell that process to stop and wait until it has; False if there was none.

        Raises:
            RunError: it does not stop.
        """
        return stop_holder(self.lock_path, self._log, timeout_s)


def write_status(path: Path, fields: Mapping[str, Any]) -> None:
    """Write down what a process is doing, whole; only its owner can read it."""
    replace_file(path, json.dumps(dict(fields)).encode())


def read_status(path: Path) -> dict[str, Any]:
    """What was written down last; empty where nothing was, or nothing that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
