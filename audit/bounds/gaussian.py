"""A model-based bound: the scores are two Gaussians of equal variance.

The distance of their means in standard deviations is the mu of Gaussian differential privacy. Its
lower confidence limit comes from the noncentral t distribution, which is exact for the model. It
uses every score and is therefore much sharper than guessing, but it holds only as far as the model
does: it is always labelled *model based*.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.stats import nct

from calyx.audit.bounds.gdp import epsilon_of
from calyx.audit.bounds.guesses import LEVEL, Coins, Scores, check

# Of the noncentrality: scores that far apart show a mu in the hundreds; no one needs a larger one.
_LARGEST = 1e4


def mu_lower_bound(scores: Scores, coins: Coins, level: float = LEVEL) -> float:
    """Lower end of the two-sided interval of mu at confidence 1 - level; 0 if it includes 0.

    Two-sided, because an audit also looks at the upper end: noise that is too strong is also a
    fault.
    """
    check(scores, coins)
    inside, outside = scores[coins], scores[~coins]
    n, k = len(inside), len(outside)
    if min(n, k) < 2:
        return 0.0
    squares = (n - 1) * np.var(inside, ddof=1) + (k - 1) * np.var(outside, ddof=1)
    spread = math.sqrt(squares / (n + k - 2))
    if spread == 0:
        return 0.0
    scale = math.sqrt(n * k / (n + k))
    statistic = float((inside.mean() - outside.mean()) / spread * scale)
    wanted = 1 - level / 2
    if statistic <= 0 or nct.cdf(statistic, n + k - 2, 0.0) <= wanted:
        return 0.0
    if statistic > _LARGEST and nct.cdf(statistic, n + k - 2, _LARGEST) > wanted:
        return _LARGEST / scale
    top = min(statistic, _LARGEST)
    limit = brentq(lambda c: nct.cdf(statistic, n + k - 2, c) - wanted, 0.0, top)
    return float(limit) / scale


def lower_bound(scores: Scores, coins: Coins, delta: float, level: float = LEVEL) -> float:
    """The bound as epsilon at `delta`."""
    return epsilon_of(mu_lower_bound(scores, coins, level), delta)
