"""Scores of canaries from what an observer saw of each round."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calyx.audit.bounds.guesses import Scores


def likelihood_scores(
    projections: NDArray[np.float64],
    rate: float | NDArray[np.float64],
    spread: float | NDArray[np.float64],
) -> Scores:
    """log-likelihood ratio of "in" against "out" over all rounds, under Poisson sampling.

    A canary that is in adds 1 to the rounds that sample it. The plain sum gives a round in which
    nothing was added the same weight as one in which something was. Without sampling (rate 1) the
    ratio is the sum, weighted by the noise.

    Args:
        projections: (rounds, canaries), in clip norms.
        rate: sampling rate; or one for each canary, (canaries,).
        spread: standard deviation of the noise, in clip norms; or one for each projection,
            (rounds, canaries), 0 where a canary had no part.

    Returns:
        (canaries,), higher for those that were in.
    """
    variance = np.broadcast_to(np.square(spread), projections.shape)
    evidence = np.zeros_like(projections)
    np.divide(projections - 0.5, variance, out=evidence, where=variance > 0)
    with np.errstate(divide="ignore"):
        out_of_it, in_it = np.log1p(-np.asarray(rate)), np.log(rate)
    return np.asarray(np.logaddexp(out_of_it, in_it + evidence).sum(axis=0))
