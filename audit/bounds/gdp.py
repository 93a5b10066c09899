"""Gaussian differential privacy: between mu and (epsilon, delta) (Dong, Roth, Su 2019)."""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

_LARGEST_MU = 100.0


def delta_of(mu: float, epsilon: float) -> float:
    """delta(epsilon) of a mu-GDP mechanism: Corollary 2.13."""
    if mu <= 0:
        return 0.0
    first = float(ndtr(-epsilon / mu + mu / 2))
    return first - math.exp(epsilon + float(log_ndtr(-epsilon / mu - mu / 2)))


def epsilon_of(mu: float, delta: float) -> float:
    """The epsilon that mu-GDP gives at `delta`, in (0, 1)."""
    if mu <= 0 or delta_of(mu, 0.0) <= delta:
        return 0.0
    # At mu^2/2 + mu * 40 delta is far below any float; it falls in between.
    top = mu * mu / 2 + 40 * mu
    return float(brentq(lambda epsilon: delta_of(mu, epsilon) - delta, 0.0, top, xtol=1e-10))


def mu_of(epsilon: float, delta: float) -> float:
    """The largest mu whose mechanism is (epsilon, delta)-DP."""
    return float(brentq(lambda mu: delta_of(mu, epsilon) - delta, 1e-9, _LARGEST_MU, xtol=1e-12))
