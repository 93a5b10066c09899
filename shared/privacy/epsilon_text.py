"""Epsilon, odds and delta in print: the only place where they are turned into text.

A guarantee is rounded up, what an attack has shown is rounded down, and what a person has chosen
is printed as it was written: nothing in print promises more than it keeps. A test looks through the
source for other ways to format them.
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Context, Decimal

# Without it, 8.0 stored as 8.000000000000002 would read 8.01. In hundredths of epsilon it is far
# below what the accountants' own double precision can tell apart.
_SLACK = 1e-9
_DELTA_DIGITS = Context(prec=4, rounding=ROUND_CEILING)
_LARGEST_FACTOR = 1e9


def epsilon_text(epsilon: float | None, *, decimals: int = 2) -> str:
    """Two decimals below 100 and none above, rounded up: it never promises too much.

    None, infinity and NaN are no guarantee.
    """
    if epsilon is None or not math.isfinite(epsilon):
        return "∞"
    if epsilon <= 0:
        return "0"
    return _rounded_up(epsilon, decimals)


def lower_bound_text(epsilon: float | None) -> str:
    """Two decimals, rounded down: a printed lower bound never claims too much."""
    return "–" if epsilon is None else f"{math.floor(epsilon * 100 + _SLACK) / 100:.2f}"


def promise_text(epsilon: float | None) -> str:
    """An epsilon that a person has chosen, every digit of it: ``8``, ``0.1``, ``8.0000001``."""
    if epsilon is None or not math.isfinite(epsilon):
        return "∞"
    return repr(float(epsilon)).removesuffix(".0")


def odds_text(epsilon: float) -> str:
    """e^epsilon, by which the odds of a statement may change at most; rounded up."""
    factor = math.exp(min(epsilon, 700.0))
    return _rounded_up(factor, 2) if factor < _LARGEST_FACTOR else "∞"


def delta_text(delta: float) -> str:
    """A delta, or another small figure of a guarantee (delta n, mu): four digits, rounded up."""
    # A last bit too much, as 0.1 + 0.2 has it, is no reason for the next digit.
    return f"{float(Decimal(repr(delta * (1 - 1e-12))).normalize(_DELTA_DIGITS)):g}"


def whom_text(unit: str, noise: str) -> str:
    """Whom a run's epsilon is for, to follow "for each"; a client needs its neighbours named."""
    if unit != "client":
        return unit
    return "client (its data replaced)" if noise == "local" else "client (its update against none)"


def _rounded_up(value: float, decimals: int) -> str:
    digits = decimals if value < 100 else 0
    scale = 10.0**digits
    return f"{math.ceil(value * scale - _SLACK) / scale:,.{digits}f}"
