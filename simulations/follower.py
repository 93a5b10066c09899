"""Following the journal of a run while it is written."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from calyx.server.state.journal import Event, JournalReader

_PAUSE_S = 0.1


class JournalFollower:
    """Hands each new journal line to `on_event`, from a thread, until the block ends.

    The journal of a resumed run begins with the rounds before the restart; those are handed on
    too, so that a display shows the whole run. A journal that is begun again while it is followed
    is read again from its start, without the rounds seen before.
    """

    def __init__(self, path: Path, on_event: Callable[[Event], None]) -> None:
        self._reader, self._on_event = JournalReader(path), on_event
        self._rounds = set[int]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="journal", daemon=True)

    def __enter__(self) -> JournalFollower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        while True:
            last_look = self._stop.is_set()
            for event in self._reader.new_events():
                self._hand_on(event)
            if last_look:
                return
            self._stop.wait(_PAUSE_S)

    def _hand_on(self, event: Event) -> None:
        if event["event"] == "round":
            if event["round"] in self._rounds:
                return
            self._rounds.add(event["round"])
        self._on_event(event)
