"""An estimate for whole clients: canary clients and cosines (Andrew et al. 2023, Algorithm 3).

A canary client sends a random direction as its update. The cosine between a direction and the
model's movement is N(0, 1/d) for a direction that was left out. A Gaussian is fitted to the
cosines of those that were in; the (epsilon, delta) between the two Gaussians is the estimate. It
has no confidence level, and the report says so: it rests on a spread that was fitted to a few
dozen cosines, and a spread that comes out a fifth too wide by chance doubles it.

`mu_lower_bound` needs less, the shift of the mean, and has a level if the cosines are Gaussian.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from calyx.audit.bounds.guesses import LEVEL, Scores

LARGEST_EPSILON = 200.0
_GRID = 20_001
_SPREADS = 12.0


def epsilon_estimate(cosines: Scores, dimension: int, delta: float) -> float:
    """Estimate epsilon of the unit *client* from the cosines of canaries that were in.

    Args:
        cosines: (canaries,), between each direction and minus the movement of the model.
        dimension: of the model, d.
        delta: at which epsilon is estimated.

    Raises:
        ValueError: fewer than two canaries, or no movement.
    """
    mean, spread = _fitted(cosines, dimension)
    null = (0.0, 1 / math.sqrt(dimension))
    fitted = (mean, max(spread, 1e-12))
    return max(between(fitted, null, delta), between(null, fitted, delta))


def mu_lower_bound(cosines: Scores, dimension: int, level: float = LEVEL) -> float:
    """Lower limit of the mu of Gaussian differential privacy, at confidence 1 - level; model based.

    What was added to the model in each direction is unit Gaussian around mu, in units of
    1/sqrt(d). Where clients take part in some rounds only, the spread is larger, and that one
    counts.

    Args:
        cosines, dimension: as for `epsilon_estimate`.
        level: chance that the limit lies above mu.

    Raises:
        ValueError: as `epsilon_estimate`.
    """
    mean, spread = _fitted(cosines, dimension)
    root = math.sqrt(dimension)
    error = max(1.0, spread * root) / math.sqrt(len(cosines))
    return max(0.0, mean * root - float(norm.ppf(1 - level)) * error)


def _fitted(cosines: Scores, dimension: int) -> tuple[float, float]:
    if len(cosines) < 2 or dimension < 2 or not np.isfinite(cosines).all():
        raise ValueError("cosines of at least two canaries are needed, all finite")
    return float(np.mean(cosines)), float(np.std(cosines, ddof=1))


def between(p: tuple[float, float], q: tuple[float, float], delta: float) -> float:
    """Smallest epsilon with P[S] <= e^eps Q[S] + delta for all S, P and Q being (mean, spread).

    At most 200: a larger epsilon is no longer a promise, and is returned as 200.

    delta(eps) = P[L > eps] - e^eps Q[L > eps] with the loss L = log p/q, integrated on a grid.
    """
    # Points around each mean, in its own spread: one even grid over both could step over the
    # narrower of the two and find nothing.
    around = [mean + spread * np.linspace(-_SPREADS, _SPREADS, _GRID) for mean, spread in (p, q)]
    x = np.union1d(*around)
    log_p, log_q = norm.logpdf(x, *p), norm.logpdf(x, *q)

    def excess(epsilon: float) -> float:
        # (p - e^eps q)+ without overflow.
        ratio = np.minimum(epsilon + log_q - log_p, 0.0)
        return float(np.trapezoid(np.exp(log_p) * -np.expm1(ratio), x)) - delta

    if excess(0.0) <= 0:
        return 0.0
    if excess(LARGEST_EPSILON) > 0:
        return LARGEST_EPSILON
    return float(brentq(excess, 0.0, LARGEST_EPSILON, xtol=1e-6))
