"""Poisson variables whose probabilities are right although their logarithms cancel."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
from scipy import stats

from calyx.shared.errors import PrivacyError
from calyx.shared.privacy.poisson import LARGEST_MEAN, log_probability, poisson, proposal

MEANS = (10.0, 14.875, 33.7, 1000.25, 2.9e5, 5_000_000.7, 1e10)


@pytest.mark.parametrize("mean", MEANS)
def test_log_probabilities_are_right_to_twelve_digits(mean: float) -> None:
    for deviations in np.linspace(-12, 12, 25):
        offset = float(np.floor(deviations * math.sqrt(mean)))
        k = math.floor(mean) + int(offset)
        if k < 0:
            continue
        with mpmath.workdps(60):
            exact = k * mpmath.log(mpmath.mpf(mean)) - mpmath.mpf(mean) - mpmath.loggamma(k + 1)
            found = mpmath.mpf(float(log_probability(np.array([offset]), mean)[0]))
            assert abs(exact - found) < 1e-12


def test_the_hat_is_above_the_probabilities_everywhere() -> None:
    near_ends = np.geomspace(1e-12, 0.01, 2000)
    inner = np.linspace(-0.5, 0.5, 40_001)[1:-1]
    uniform = np.concatenate([inner, near_ends - 0.5, 0.5 - near_ends])
    for mean in np.concatenate([np.linspace(10, 20, 81), np.geomspace(20, LARGEST_MEAN, 60)]):
        _, log_ratio = proposal(uniform, float(mean))
        assert log_ratio.max() <= 0, mean


@pytest.mark.parametrize("mean", [10.0, 14.875, 15.0, 40.3, 300.0])
def test_the_law_of_the_values_is_right_to_ten_digits(mean: float) -> None:
    """Integrated over the uniform variable, not drawn: the chance to propose and accept each k."""
    deviation = math.sqrt(mean)
    low, high = max(0, math.floor(mean - 8 * deviation)), math.ceil(mean + 8 * deviation)
    wanted = np.arange(low, high + 2) - math.floor(mean)
    # Where the proposal goes from k - 1 to k: it grows with the uniform variable.
    below, above = np.full(len(wanted), -0.5), np.full(len(wanted), 0.5)
    for _ in range(60):
        middle = (below + above) / 2
        reached = proposal(middle, mean)[0] >= wanted
        below, above = np.where(reached, below, middle), np.where(reached, middle, above)
    points, weights = np.polynomial.legendre.leggauss(40)
    found = np.zeros(len(wanted) - 1)
    for number, (start, end) in enumerate(itertools.pairwise(above)):
        inner = [0.0] if start < 0 < end else []  # what is integrated has an edge there
        cuts = [start, *inner, end]
        for first, last in itertools.pairwise(cuts):
            for left, right in itertools.pairwise(np.linspace(first, last, 5)):
                uniform = (left + right) / 2 + (right - left) / 2 * points
                offset, log_ratio = proposal(np.clip(uniform, start, end - 1e-17), mean)
                accepted = np.where(offset == wanted[number], np.exp(log_ratio), 0.0)
                found[number] += (right - left) / 2 * float(weights @ np.minimum(accepted, 1))
    exact = stats.poisson(mean).pmf(np.arange(low, high + 1))
    ratio = found / found.sum() * exact.sum() / exact
    assert np.abs(ratio - 1).max() < 1e-10


@pytest.mark.parametrize("mean", [0.0, 3.0, 10.0, 14.875, 40.0])
def test_values_follow_the_distribution(mean: float) -> None:
    # Chi-square goodness of fit of a million values: false alarm 1e-6.
    draws = poisson(np.random.default_rng(5), mean, 1_000_000)
    assert draws.dtype == np.int64
    if mean == 0:
        assert not draws.any()
        return
    distribution = stats.poisson(mean)
    low, high = int(distribution.ppf(1e-4)), int(distribution.isf(1e-4))
    inner = np.arange(low, high + 1)
    expected = np.array(
        [distribution.cdf(low - 1), *distribution.pmf(inner), distribution.sf(high)]
    )
    counts = np.array(
        [(draws < low).sum(), *((draws == k).sum() for k in inner), (draws > high).sum()]
    )
    if expected[0] * len(draws) < 10:
        expected = np.array([expected[0] + expected[1], *expected[2:]])
        counts = np.array([counts[0] + counts[1], *counts[2:]])
    assert stats.chisquare(counts, len(draws) * expected / expected.sum()).pvalue > 1e-6


@pytest.mark.parametrize("mean", [-1.0, math.nan, math.inf, 1.01 * LARGEST_MEAN])
def test_an_impossible_mean_is_refused(mean: float) -> None:
    with pytest.raises(PrivacyError, match="Poisson mean"):
        poisson(np.random.default_rng(0), mean, 3)
