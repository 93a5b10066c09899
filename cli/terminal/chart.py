"""Small charts made of block characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_LYING = " ▏▎▍▌▋▊▉█"


def sparkline(values: Sequence[float], width: int = 30) -> str:
    """One line, lowest value to highest; longer series are thinned out to `width`.

    >>> sparkline([0.1, 0.4, 0.9])
    '▁▄█'
    """
    shown = thinned(values, width)
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    span = high - low
    if span <= 0:
        return _EIGHTHS[1] * len(shown)
    return "".join(_EIGHTHS[1 + round(7 * (value - low) / span)] for value in shown)


def bar(value: float, width: int, top: float) -> str:
    """A horizontal bar of up to `width` cells for `top` (above 0), to an eighth of a cell.

    >>> bar(3, 4, 8)
    '█▌'
    """
    eighths = round(8 * width * min(value / top, 1.0)) if value > 0 else 0
    whole, rest = divmod(max(eighths, 1) if value > 0 else 0, 8)
    return "█" * whole + (_LYING[rest] if rest else "")


def columns(values: Sequence[float], height: int, top: float) -> list[str]:
    """A column chart from zero to `top` (above 0), as `height` lines, the highest first.

    What is above zero shows at least the smallest block.
    """
    levels = [
        max(round(8 * height * min(value / top, 1.0)), 1) if value > 0 else 0 for value in values
    ]
    return [
        "".join(_EIGHTHS[min(max(level - 8 * row, 0), 8)] for level in levels)
        for row in reversed(range(height))
    ]


def thinned(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` (at least 2) items at even distances, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    last = len(items) - 1
    return [items[round(i * last / (most - 1))] for i in range(most)]
