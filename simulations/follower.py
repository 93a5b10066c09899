"""Following the journal of a run while it is written."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

Event = dict[str, Any]
_PAUSE_S = 0.1


class JournalFollower:
    """Hands each new journal line to `on_event`, from a thread, until the block ends.

    The journal of a resumed run begins with the rounds before the restart; those are handed on
    too, so that a display shows the whole run. A journal that is begun anew while it is followed,
    because its writer was restarted, is read again from its start, without the rounds seen before.
    """

    def __init__(self, path: Path, on_event: Callable[[Event], None]) -> None:
        self._path, self._on_event = path, on_event
        self._file_number, self._rounds = 0, set[int]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="journal", daemon=True)

    def __enter__(self) -> JournalFollower:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        position = 0
        while True:
            last_look = self._stop.is_set()
            position = self._read(position)
            if last_look:
                return
            self._stop.wait(_PAUSE_S)

    def _read(self, position: int) -> int:
        try:
            with self._path.open("rb") as file:
                number = os.fstat(file.fileno()).st_ino
                if number != self._file_number:
                    self._file_number, position = number, 0
                file.seek(position)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    position += len(line)
                    self._hand_on(json.loads(line))
        except FileNotFoundError:
            pass
        return position

    def _hand_on(self, event: Event) -> None:
        if event["event"] == "round":
            if event["round"] in self._rounds:
                return
            self._rounds.add(event["round"])
        self._on_event(event)
