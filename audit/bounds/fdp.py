"""Auditing f-differential privacy in one run (Mahloujifar, Melis, Chaudhuri 2024, Algorithm 3).

The hypothesis is a whole trade-off curve and not one pair (epsilon, delta), which uses the guesses
better. For a mu-GDP curve the complement's inverse is Phi(Phi^-1(x) - mu). The mechanisms of Calyx
are Gaussian or close to it, and composing keeps them so; full batches are mu-GDP exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from audit.bounds.gdp import epsilon_of
from audit.bounds.guesses import LEVEL, Coins, Guesses, Scores, guess_counts, guesses

_LARGEST_MU = 12.0
_POINTS = 48
_REFINEMENTS = 4


def is_rejected(mu: NDArray[np.float64], made: Guesses, level: float) -> NDArray[np.bool_]:
    """Whether each mu-GDP hypothesis is ruled out by the guesses; bool like `mu`.

    R bounds the chance of at least so many right guesses, H the rest; both are walked down from
    the observed count as the algorithm does.
    """
    m, r, v = made.canaries, made.made, made.right
    right = np.full(mu.shape, level * v / m)
    wrong = np.full(mu.shape, level * (r - v) / m)
    for i in range(v - 1, -1, -1):
        grown = np.maximum(wrong, ndtr(ndtri(right) - mu))
        right = np.minimum(1.0, right + i / (r - i) * (grown - wrong))
        wrong = grown
    return np.asarray(right + wrong > r / m)


def mu_of_guesses(made: Guesses, level: float = LEVEL) -> float:
    """The largest mu that these guesses rule out, all smaller ones being ruled out too."""
    low, high = 0.0, _LARGEST_MU
    for _ in range(_REFINEMENTS):
        grid = np.linspace(low, high, _POINTS)
        rejected = is_rejected(grid, made, level)
        if not rejected[0]:
            return 0.0
        kept = int(np.argmin(rejected)) if not rejected.all() else _POINTS - 1
        low, high = float(grid[max(kept - 1, 0)]), float(grid[kept])
    return low


def lower_bound(scores: Scores, coins: Coins, delta: float, level: float = LEVEL) -> float:
    """Best over the pre-set counts, each held to its part of the level, as epsilon at `delta`."""
    share = level / len(guess_counts(len(scores)))
    return epsilon_of(max(mu_of_guesses(made, share) for made in guesses(scores, coins)), delta)
