"""Epsilon in print: a guarantee is rounded up, what an attack has shown is rounded down."""

from __future__ import annotations

import math

# Without it, 8.0 stored as 8.000000000000002 would read 8.01.
_SLACK = 1e-6


def epsilon_text(epsilon: float | None) -> str:
    """Three or four digits, rounded up: a printed epsilon never promises too much.

    None and infinity are no guarantee.
    """
    if epsilon is None or math.isinf(epsilon):
        return "∞"
    if epsilon <= 0:
        return "0"
    digits = 2 if epsilon < 100 else 0
    scale = 10.0**digits
    return f"{math.ceil(epsilon * scale - _SLACK) / scale:,.{digits}f}"


def lower_bound_text(epsilon: float | None) -> str:
    """Two decimals, rounded down: a printed lower bound never claims too much."""
    return "–" if epsilon is None else f"{math.floor(epsilon * 100 + _SLACK) / 100:.2f}"
