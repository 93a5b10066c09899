"""Epsilon from exact intervals of true and false positive rates (Clopper, Pearson 1934).

A test with true positive rate T and false positive rate F of an (epsilon, delta)-DP mechanism has
T <= e^eps F + delta and 1 - F <= e^eps (1 - T) + delta (Kairouz, Oh, Viswanath 2015). The
intervals treat canaries as independent trials, which canaries of one run are only nearly.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import beta

from calyx.audit.bounds.guesses import LEVEL, SHARES, Coins, Scores, Shares, check, guess_counts


def at_least(successes: float, trials: float, level: float) -> float:
    """The rate is at least this, with confidence 1 - level.

    Fractions of trials are those of means over trials that are not independent.
    """
    return float(beta.ppf(level, successes, trials - successes + 1)) if successes else 0.0


def at_most(successes: float, trials: float, level: float) -> float:
    """The rate is at most this, with confidence 1 - level."""
    return 1 - at_least(trials - successes, trials, level)


def epsilon_of_rates(
    hits: int, included: int, alarms: int, left_out: int, delta: float, level: float
) -> float:
    """The larger of both directions; they need the same two one-sided limits.

    Args:
        hits: included canaries that were called included.
        included: all included ones.
        alarms: canaries left out that were called included.
        left_out: all of those.
        delta: of the guarantee.
        level: chance that the bound is wrong.
    """
    if not included or not left_out:
        return 0.0
    hit = at_least(hits, included, level / 2)
    alarm = at_most(alarms, left_out, level / 2)
    best = 0.0
    for gain, loss in ((hit, alarm), (1 - alarm, 1 - hit)):
        if gain > delta and loss > 0:
            best = max(best, math.log((gain - delta) / loss))
    return best


def lower_bound(
    scores: Scores,
    coins: Coins,
    delta: float,
    level: float = LEVEL,
    shares: Shares = SHARES,
) -> float:
    """Best over pre-set thresholds: the n highest, or all but the n lowest, are called included.

    Thresholds are ranks, since the size of scores is not known beforehand. With the number called
    included fixed, hits vary less than the binomials that the limits are made for.
    """
    check(scores, coins)
    ordered = coins[np.argsort(-scores, kind="stable")]
    halves = [count // 2 for count in guess_counts(len(scores), shares)]
    called = sorted({*halves, *(len(scores) - half for half in halves)})
    included = int(coins.sum())
    part = level / len(called)
    best = 0.0
    for count in called:
        hits = int(ordered[:count].sum())
        rates = (hits, included, count - hits, len(scores) - included)
        best = max(best, epsilon_of_rates(*rates, delta, part))
    return best
