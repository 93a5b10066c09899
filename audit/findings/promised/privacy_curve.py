"""Epsilon at many deltas, and what follows from the whole curve.

* **Curve.** The same composition at many deltas. All pairs hold at once.
* **Worst true positive rate.** Every pair bounds any test by TPR <= delta + e^eps FPR and
  TPR <= 1 - e^-eps (1 - delta - FPR) (Kairouz, Oh, Viswanath 2015); the smallest over the curve is
  reported.
* **mu.** The smallest mu for which the Gaussian trade-off, N(0,1) against N(mu,1), is no stronger
  than the curve at any of its points (Dong, Roth, Su 2022): a summary, never the headline.
* **Several records.** (eps, delta) for one record is (k eps, k e^((k-1) eps) delta) for k of them
  (Dwork, Roth 2014, Theorem 2.2 for pure, Vadhan 2017, Lemma 2.2 for approximate privacy); the
  point of the curve is chosen so that the group's delta is the configured one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from calyx.audit.section import Section
from calyx.shared.privacy.accounting import spent
from calyx.shared.privacy.event import PrivacyEvent, Unit

_CURVE_DELTAS = tuple(float(x) for x in np.logspace(-12, -0.3, 40))
_FALSE_POSITIVE_RATES = (0.001, 0.01, 0.1)
_GROUPS = (2, 5)


class CurvePoint(Section):
    """One pair of the guarantee."""

    delta: float
    epsilon: float


class WorstTest(Section):
    """How often any attacker can be right at a given rate of being wrong."""

    false_positive_rate: float
    true_positive_rate: float


class GroupCost(Section):
    """The guarantee for a person with several records; None: none worth the name."""

    records: int
    epsilon: float | None


def epsilon_curve(events: Sequence[PrivacyEvent], unit: Unit) -> tuple[CurvePoint, ...]:
    """Epsilon at many deltas, largest delta last; empty without a guarantee."""
    points = [(delta, spent(events, delta, unit).epsilon) for delta in _CURVE_DELTAS]
    return tuple(
        CurvePoint(delta=delta, epsilon=epsilon)
        for delta, epsilon in points
        if math.isfinite(epsilon)
    )


def worst_power(curve: Sequence[CurvePoint], false_positive_rate: float) -> float:
    """Largest true positive rate that the curve allows at this false positive rate."""
    bound = 1.0
    for point in curve:
        factor = math.exp(min(point.epsilon, 700.0))
        bound = min(
            bound,
            point.delta + factor * false_positive_rate,
            1 - (1 - point.delta - false_positive_rate) / factor,
        )
    return max(bound, false_positive_rate)


def worst_tests(curve: Sequence[CurvePoint]) -> tuple[WorstTest, ...]:
    """`worst_power` at a few false positive rates; empty without a guarantee."""
    if not curve:
        return ()
    return tuple(
        WorstTest(false_positive_rate=x, true_positive_rate=worst_power(curve, x))
        for x in _FALSE_POSITIVE_RATES
    )


def gaussian_mu(curve: Sequence[CurvePoint]) -> float | None:
    """The smallest mu that the curve allows; None if no point tells."""

    def excess(mu: float, point: CurvePoint) -> float:
        low = norm.cdf(-point.epsilon / mu + mu / 2)
        # e^eps Phi(-eps/mu - mu/2), in logarithms because e^eps alone may overflow.
        high = math.exp(point.epsilon + norm.logcdf(-point.epsilon / mu - mu / 2))
        return float(low - high) - point.delta

    mus = [
        brentq(excess, 1e-6, 1e3, args=(point,))
        for point in curve
        if point.epsilon > 0 and excess(1e-6, point) < 0 < excess(1e3, point)
    ]
    return max(mus, default=None)


def group_costs(curve: Sequence[CurvePoint], delta: float) -> tuple[GroupCost, ...]:
    """What the curve says for several records of one person, at `delta`."""
    costs = []
    for records in _GROUPS:
        reached = [
            records * point.epsilon
            for point in curve
            if math.log(records * point.delta) + (records - 1) * point.epsilon <= math.log(delta)
        ]
        costs.append(GroupCost(records=records, epsilon=min(reached, default=None)))
    return tuple(costs)
