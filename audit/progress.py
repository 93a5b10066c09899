"""How far the work of an audit is."""

from __future__ import annotations

from collections.abc import Callable

# Told what is being done, and the share of it that is done, 0 to 1.
Progress = Callable[[str, float], None]
# The same within one kind of work.
Tick = Callable[[float], None]


def untold(what: str, share: float) -> None:
    """A `Progress` that nothing is shown of."""
