"""Poisson variables whose probabilities are right to ten digits, for means up to 1e10.

NumPy's sampler decides by ``k log(mean) - mean - lgamma(k + 1)``. At a mean of 1e10 these are
numbers of 1e11 that cancel to a few units, so double precision leaves probabilities that are off by
up to a part in 25,000, in a pattern that depends on k. At many means of 10 to 1000 what it compares
a uniform variable with is above 1 for some k, by up to .006, and these come up too seldom: by up to
3 parts in 100,000. That would hardly show in an epsilon. But integer noise is there so that
nothing has to be said about rounding; so neither is left here.

The method is the transformed rejection of Hörmann 1993 (PTRS), as in NumPy, with

* log probabilities by the saddle-point expansion (Loader 2000), off by less than 1e-13;
* k counted from the mean, so that no digits are lost there;
* an exponential variable for the logarithm of the uniform one, which is right in the tails too;
* a hat that is one per cent higher, so that it is above the probabilities everywhere.

What remains is the grid of 2^-53 of the one uniform variable: a probability is off by a part in
1e16 / (5 sqrt(mean)), 2e10 at the largest mean. Below a mean of 10, where NumPy multiplies such
variables, it is a part in 1e16 times the mean, so ten digits need a mean of 1e-6. Less noise has no
epsilon to speak of.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from calyx.shared.errors import PrivacyError

Floats = NDArray[np.float64]

# The one limit of the sampler: relative errors of probabilities stay below 1e-10, so that a million
# values in a hundred releases add less than 0.02 to epsilon even if all errors pointed one way.
LARGEST_MEAN = 1e10
# NumPy multiplies uniform variables below this; see above for what that loses. PTRS is for larger
# means.
_SMALLEST_TRANSFORMED = 10.0
# The published hat is too low by up to .0057 (at a mean of 15): a test goes through the means.
_LOG_HIGHER = 0.01
_SERIES_FROM = 16
# log k! - log of Stirling's formula for k = 0 .. 15; that of 0 is not used.
_STIRLING_ERROR = np.array(
    [
        0.0,
        *(
            math.log(math.factorial(k)) - (k + 0.5) * math.log(k) + k - 0.5 * math.log(2 * math.pi)
            for k in range(1, _SERIES_FROM)
        ),
    ]
)


def poisson(generator: np.random.Generator, mean: float, count: int) -> NDArray[np.int64]:
    """Independent Poisson values, int64 (count,).

    Raises:
        PrivacyError: the mean is negative, not finite or above `LARGEST_MEAN`.
    """
    if not 0 <= mean <= LARGEST_MEAN:
        raise PrivacyError(f"a Poisson mean of {mean:g} is outside 0 to {LARGEST_MEAN:g}")
    if mean < _SMALLEST_TRANSFORMED:
        return generator.poisson(mean, count).astype(np.int64, copy=False)
    found = np.empty(count, dtype=np.int64)
    missing = np.arange(count)
    while len(missing):
        uniform = generator.random(len(missing)) - 0.5
        offset, log_ratio = proposal(uniform, mean)
        accepted = -generator.standard_exponential(len(missing)) <= log_ratio
        found[missing[accepted]] = math.floor(mean) + offset[accepted].astype(np.int64)
        missing = missing[~accepted]
    return found


def proposal(uniform: Floats, mean: float) -> tuple[Floats, Floats]:
    """Value less the mean's whole part, and log probability of accepting it (PTRS, step 3).

    Args:
        uniform: in [-1/2, 1/2).
        mean: at least 10.
    """
    b = 0.931 + 2.53 * math.sqrt(mean)
    a = -0.059 + 0.02483 * b
    log_inverse_alpha = math.log(1.1239 + 1.1328 / (b - 3.4))
    left = np.maximum(0.5 - np.abs(uniform), 2.0**-54)
    offset = np.floor((2 * a / left + b) * uniform + (mean - math.floor(mean)) + 0.43)
    density = np.log(a / left**2 + b)
    return offset, log_probability(offset, mean) + density - log_inverse_alpha - _LOG_HIGHER


def log_probability(offset: Floats, mean: float) -> Floats:
    """log P(K = floor(mean) + offset), minus infinity for K < 0; Loader 2000."""
    whole = math.floor(mean)
    k = np.maximum(whole + offset, 1.0)
    away = offset - (mean - whole)
    # k log(k / mean) + mean - k: near the mean by its series, elsewhere as it stands.
    v = away / (k + mean)
    square, term, near = v * v, 2 * k * v, away * v
    for odd in range(3, 23, 2):
        term = term * square
        near = near + term / odd
    deviance = np.where(np.abs(v) < 0.1, near, k * np.log(k / mean) - away)
    log_p = -deviance - _stirling_error(k) - 0.5 * np.log(2 * math.pi * k)
    log_p = np.where(whole + offset == 0, -mean, log_p)
    return np.where(whole + offset < 0, -np.inf, log_p)


def _stirling_error(k: Floats) -> Floats:
    """log k! less log(sqrt(2 pi k) (k/e)^k), for k >= 1."""
    square = 1 / (k * k)
    series = 1 / 1680 - square / 1188
    for coefficient in (1 / 1260, 1 / 360, 1 / 12):
        series = coefficient - series * square
    exact = _STIRLING_ERROR[np.minimum(k, _SERIES_FROM - 1).astype(np.int64)]
    return np.where(k < _SERIES_FROM, exact, series / k)
