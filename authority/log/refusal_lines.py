"""Which refusals get a line in the log, so that no one can fill the disk by asking for nonsense.

Asking costs a hostile server next to nothing, and each line is forced to disk. Of each run the
first `MAX_LINES` refusals are written whole, without those that only repeat the one before. All
others are counted, and the count is written whenever it has doubled: the log shows what happens,
and how often, in at most `MAX_LINES` + log2(refusals) lines. Runs that were never opened here share
one such allowance, because anyone who may ask can make up names.
"""

from __future__ import annotations

from collections import Counter

from calyx.authority.log.events import Event, MoreRefused, Opened, Refused

MAX_LINES = 100


class RefusalLines:
    """Counts the refusals of a log. After a restart it continues from what the log says."""

    def __init__(self) -> None:
        self._opened: set[str] = set()
        self._lines: Counter[str] = Counter()
        self._more: Counter[str] = Counter()
        self._last: dict[str, Refused] = {}

    def note(self, event: Event) -> None:
        """Count an event that is in the log."""
        match event:
            case Opened():
                self._opened.add(event.run)
            case Refused():
                run = self._run(event)
                self._lines[run] += 1
                self._last[run] = event
            case MoreRefused():
                self._more[event.run] = event.count
            case _:
                pass

    def of(self, refused: Refused) -> tuple[Event, ...]:
        """What to write because of a refusal: itself, a count, or nothing."""
        run = self._run(refused)
        if self._lines[run] < MAX_LINES and refused != self._last.get(run):
            return (refused,)
        self._more[run] += 1
        count = self._more[run]
        return (MoreRefused(run, count),) if count & (count - 1) == 0 else ()

    def _run(self, refused: Refused) -> str:
        return refused.run if refused.run in self._opened else ""
