"""Privacy auditing with one training run (Steinke, Nasr, Jagielski 2023, Theorem 5.2).

If the mechanism is (epsilon, delta)-DP, the number of right guesses among r is dominated by
W ~ Bin(r, e^eps / (1 + e^eps)), but for a term in delta that counts *all* m canaries:

    p(eps) = min(1, P[W >= v] + 2 m delta max_{1<=i<=v} P[v-i <= W < v] / i)

The lower bound is the largest epsilon that is rejected at the level.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import binom

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

_LARGEST_EPSILON = 50.0
_PRECISION = 1e-6


def p_value(epsilon: float, made: Guesses, delta: float) -> float:
    """Largest chance of at least that many right guesses if (epsilon, delta) holds."""
    share = 1 / (1 + math.exp(-epsilon))
    right = made.right
    tail = float(binom.sf(right - 1, made.made, share))
    if delta == 0 or right == 0:
        return min(1.0, tail)
    i = np.arange(1, right + 1)
    below = binom.cdf(right - 1, made.made, share) - binom.cdf(right - i - 1, made.made, share)
    return min(1.0, tail + 2 * made.canaries * delta * float(np.max(below / i)))


def epsilon_of_guesses(made: Guesses, delta: float, level: float = LEVEL) -> float:
    """The largest epsilon that these guesses rule out; 0 if none.

    >>> round(epsilon_of_guesses(Guesses(1000, 100, 75), 1e-4), 3)
    0.673
    """
    if p_value(0.0, made, delta) > level:
        return 0.0
    low, high = 0.0, _LARGEST_EPSILON
    while high - low > _PRECISION:
        middle = (low + high) / 2
        if p_value(middle, made, delta) <= level:
            low = middle
        else:
            high = middle
    return low


def lower_bound(
    scores: Scores,
    coins: Coins,
    delta: float,
    level: float = LEVEL,
    shares: Shares = SHARES,
) -> float:
    """Best over the pre-set counts, each held to its part of the level."""
    part = level / len(guess_counts(len(scores), shares))
    return max(epsilon_of_guesses(made, delta, part) for made in guesses(scores, coins, shares))
