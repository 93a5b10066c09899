"""Auditing f-differential privacy in one run (Mahloujifar, Melis, Chaudhuri 2024, Algorithm 3).

The hypothesis is a whole trade-off curve and not one pair (epsilon, delta), which uses the guesses
better. `lower_bound` tries mu-GDP curves, which are exact for full batches of a Gaussian mechanism.
Sampled batches have other curves, which lie further out at small delta than the mu-GDP curve that
fits in the middle: `lower_bound_among` takes them from an accountant.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from calyx.audit.bounds.gdp import epsilon_of
from calyx.audit.bounds.guesses import (
    LEVEL,
    SHARES,
    Coins,
    Guesses,
    Scores,
    Shares,
    guess_counts,
    guesses,
)
from calyx.audit.bounds.trade_off import Curve, GaussianCurve

Family = Callable[[int], Curve]
"""Hypotheses of one kind, number 0 the most private."""

_LARGEST_MU = 12.0
_POINTS = 48
_REFINEMENTS = 4


def is_rejected(
    curve: Curve, made: Guesses, level: float, hypotheses: int = 1
) -> NDArray[np.bool_]:
    """Whether the guesses rule out each hypothesis of `curve`; bool (hypotheses,).

    R bounds the chance of at least that many right guesses, H the rest; as in the algorithm, both
    are computed downwards from the observed count. Rounding a vanishing H down rejects less.
    """
    m, r, v = made.canaries, made.made, made.right
    right = np.full(hypotheses, level * v / m)
    wrong = np.full(hypotheses, level * (r - v) / m)
    for i in range(v - 1, -1, -1):
        grown = np.maximum(wrong, curve.least_false_alarms(right))
        right = np.minimum(1.0, right + i / (r - i) * (grown - wrong))
        wrong = grown
    return np.asarray(right + wrong > r / m)


def mu_of_guesses(made: Guesses, level: float = LEVEL) -> float:
    """The largest mu that these guesses rule out, all smaller ones being ruled out too."""
    low, high = 0.0, _LARGEST_MU
    for _ in range(_REFINEMENTS):
        grid = np.linspace(low, high, _POINTS)
        rejected = is_rejected(GaussianCurve(grid), made, level, _POINTS)
        if not rejected[0]:
            return 0.0
        kept = int(np.argmin(rejected)) if not rejected.all() else _POINTS - 1
        low, high = float(grid[max(kept - 1, 0)]), float(grid[kept])
    return low


def lower_bound(
    scores: Scores,
    coins: Coins,
    delta: float,
    level: float = LEVEL,
    shares: Shares = SHARES,
) -> float:
    """Best over the pre-set counts, each held to its part of the level, as epsilon at `delta`."""
    part = level / len(guess_counts(len(scores), shares))
    return epsilon_of(
        max(mu_of_guesses(made, part) for made in guesses(scores, coins, shares)), delta
    )


def lower_bound_among(
    family: Family,
    size: int,
    scores: Scores,
    coins: Coins,
    delta: float,
    level: float = LEVEL,
) -> float:
    """The same with hypotheses of any kind, ordered from most to least private.

    It holds if the mechanism's curve is one of the family, or between two of them.

    Args:
        family: the hypothesis of each number below `size`.
        size: how many there are.
        scores, coins, delta, level: as for `lower_bound`.
    """
    part = level / len(guess_counts(len(scores)))
    best = max(_last_rejected(family, size, made, part) for made in guesses(scores, coins))
    return family(best).epsilon(delta) if best >= 0 else 0.0


def _last_rejected(family: Family, size: int, made: Guesses, level: float) -> int:
    """Number of the least private hypothesis that is ruled out, by bisection; -1 if none is."""
    low, high = -1, size
    while high - low > 1:
        middle = (low + high) // 2
        if is_rejected(family(middle), made, level)[0]:
            low = middle
        else:
            high = middle
    return low
