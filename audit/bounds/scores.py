"""Scores of canaries from what an observer saw of each round."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from audit.bounds.guesses import Scores


def likelihood_scores(projections: NDArray[np.float64], rate: float, spread: float) -> Scores:
    """log-likelihood ratio of "in" against "out" over all rounds, under Poisson sampling.

    A canary that is in adds 1 to the rounds that sample it. The plain sum gives a round in which
    nothing was added the same say as one in which something was.

    Args:
        projections: (rounds, canaries), in clip norms.
        rate: sampling rate.
        spread: standard deviation of the noise, in clip norms.

    Returns:
        (canaries,), higher for those that were in.
    """
    evidence = (projections - 0.5) / spread**2
    return np.asarray(np.logaddexp(math.log1p(-rate), math.log(rate) + evidence).sum(axis=0))
