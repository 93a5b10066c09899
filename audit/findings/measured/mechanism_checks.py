"""What canaries say about the mechanism: its noise, its clipping, its sums.

These are tests of the training and not bounds on epsilon. Each holds `NOISE_LEVEL`: the rate at
which a mechanism that follows its plan is called wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import norm

from calyx.audit.bounds.guesses import Coins
from calyx.audit.findings.measured.noise_law import NOISE_LEVEL
from calyx.audit.section import Section

Floats = NDArray[np.float64]

# A canary changes the weights of later local steps, and with them slightly what others add there.
_SIGNAL_MARGIN = 0.1
# The same sum of a hundred gradients computed in two ways, in clip norms: single precision leaves
# less than a thousandth.
_SAME_SUM = 0.01


class NoiseMeasured(Section):
    """Noise in what was released, measured on canaries that were left out."""

    expected: float = Field(description="standard deviation by the plan, in clip norms")
    measured: float
    p_value: float = Field(description="chance of noise this small if the plan was followed")
    too_little: bool


class SignalMeasured(Section):
    """How far the canaries that were in stand out, for each time that one was drawn."""

    measured: float = Field(description="in clip norms; 1 if each is clipped as the plan says")
    deviation: float = Field(description="standard error")
    p_value: float = Field(description="two-sided, beyond a margin of a tenth")
    as_planned: bool


class SumsComputedAgain(Section):
    """Clipped sums of the trainer's code against sums computed record by record."""

    sums: int
    largest_difference: float = Field(description="norm, in clip norms")
    agree: bool


def noise_measured(projections: Floats, noise: Floats, coins: Coins) -> NoiseMeasured:
    """Compare the spread of left-out canaries with what the plan says.

    Whatever a projection holds besides the noise (the records) only makes the spread larger, so the
    only fault that this can show is too little noise.

    Args:
        projections: float64 (rounds, canaries), in clip norms.
        noise: standard deviations by the plan, of the same shape; 0 where there was none to see.
        coins: which were in.
    """
    seen = (noise > 0) & ~coins
    freedom = int(seen.sum())
    expected = float(np.sqrt(np.mean(noise[seen] ** 2)))
    # The third root of the sum of this many squares is nearly normal (Wilson, Hilferty 1931).
    ratio = float(np.mean((projections[seen] / noise[seen]) ** 2))
    corner = 2 / (9 * freedom)
    p_value = float(norm.cdf((ratio ** (1 / 3) - (1 - corner)) / math.sqrt(corner)))
    return NoiseMeasured(
        expected=expected,
        measured=expected * math.sqrt(ratio),
        p_value=p_value,
        too_little=p_value < NOISE_LEVEL,
    )


def signal_measured(
    projections: Floats, noise: Floats, signals: Floats, coins: Coins
) -> SignalMeasured:
    """Compare how far included canaries stand out with what clipping leaves of them.

    Args:
        projections, noise, coins: as for `noise_measured`.
        signals: what a canary that is in adds to a round on average, in clip norms; (canaries,).
    """
    taken = (noise > 0).sum(axis=0)
    seen = taken > 0
    each = projections.sum(axis=0)[seen] / (taken * signals)[seen]
    inside, outside = each[coins[seen]], each[~coins[seen]]
    measured = float(inside.mean() - outside.mean())
    deviation = math.sqrt(inside.var(ddof=1) / len(inside) + outside.var(ddof=1) / len(outside))
    beyond = max(abs(measured - 1) - _SIGNAL_MARGIN, 0.0)
    p_value = float(2 * norm.sf(beyond / deviation))
    return SignalMeasured(
        measured=measured,
        deviation=deviation,
        p_value=p_value,
        as_planned=p_value >= NOISE_LEVEL,
    )


def sums_computed_again(differences: Sequence[float]) -> SumsComputedAgain:
    """Judge the distances of sums computed in two ways, in clip norms."""
    largest = max(differences, default=0.0)
    return SumsComputedAgain(
        sums=len(differences), largest_difference=largest, agree=largest <= _SAME_SUM
    )
