"""The least epsilon that noise, sampling rate and number of steps allow, without any accountant.

If an accountant halves epsilon, everything that relies on it is wrong: planner, ledger, policy,
report. So the printed figure is compared with one that owes nothing to `calyx.shared.privacy`:

* without sampling, T steps of noise s are one Gaussian of mu = sqrt(T)/s, whose epsilon is exact
  (Balle, Wang 2018): `calyx.audit.bounds.gdp`;
* with Poisson sampling of rate q, the privacy losses of P = (1-q) N(0, s^2) + q N(1, s^2) against
  Q = N(0, s^2) are put on a grid, each *rounded down*, and added up by Fourier transform. delta is
  increasing in each loss, so that this is never above the true delta(epsilon), and neither is the
  epsilon that belongs to it.

Integer noise is taken for Gaussian: with the same variance it hides no more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr

from calyx.audit.bounds.gdp import epsilon_of

Floats = NDArray[np.float64]

# Rounding down costs half a grid step per use; all uses together should cost no more than this.
_ROUNDED = 0.01
_COARSEST, _MOST_POINTS = 1e-3, 1 << 20
# The grid covers this many deviations around the mean. What wraps around beyond them, and the
# error of the transform, are less than the part of delta that is given up below.
_BELOW, _ABOVE = 12.0, 24.0
_SLACK, _TRANSFORM = 1.01, 1e-11


@dataclass(frozen=True)
class Steps:
    """Uses of one mechanism.

    Attributes:
        noise: standard deviation over the sensitivity, above 0.
        rate: probability that a unit is in, 1 for always.
        count: number of uses.
    """

    noise: float
    rate: float
    count: int


def least_epsilon(steps: Iterable[Steps], delta: float) -> float:
    """Epsilon at `delta` of all steps together is at least this."""
    return _least(tuple(sorted(steps, key=lambda s: (s.noise, s.rate, s.count))), delta)


@lru_cache(maxsize=64)
def _least(steps: tuple[Steps, ...], delta: float) -> float:
    mu = math.sqrt(sum(s.count / s.noise**2 for s in steps if s.rate == 1))
    sampled = [s for s in steps if s.rate < 1 and s.count]
    if not sampled:
        return epsilon_of(mu, delta)
    uses = sum(s.count for s in sampled) + bool(mu)
    moments = [(s.count, *_moments(s)) for s in sampled] + [(1, mu * mu / 2, mu * mu)]
    mean = sum(count * first for count, first, _ in moments)
    spread = math.sqrt(sum(count * second for count, _, second in moments))
    low, high = mean - _BELOW * spread - 1, mean + _ABOVE * spread + 1
    wanted = (high - low) / min(_COARSEST, 2 * _ROUNDED / uses)
    points = min(_MOST_POINTS, 1 << math.ceil(math.log2(max(wanted, 1024))))
    width = (high - low) / points
    transform = np.ones(points // 2 + 1, dtype=np.complex128)
    for s in sampled:
        transform *= np.fft.rfft(_rounded_down(s, width, points)) ** s.count
    if mu:
        transform *= np.fft.rfft(_gaussian_rounded_down(mu, width, points))
    masses = np.maximum(np.fft.irfft(transform, points), 0.0)
    first = math.floor(low / width)
    losses = (first + np.arange(points)) * width
    masses = np.roll(masses, -(first % points))

    def excess(epsilon: float) -> float:
        above = losses > epsilon
        lost = masses[above] * -np.expm1(epsilon - losses[above])
        return float(lost.sum()) - _SLACK * delta - _TRANSFORM

    if excess(0.0) <= 0:
        return 0.0
    return float(brentq(excess, 0.0, max(high, width), xtol=1e-6))


def _loss_grid(lowest: float, highest: float, width: float) -> tuple[int, Floats]:
    """Number of the first grid point, and the edges between all; (points + 1,)."""
    first, last = math.floor(lowest / width), math.ceil(highest / width)
    return first, np.arange(first, last + 1, dtype=np.float64) * width


def _wrapped(first: int, masses: Floats, points: int) -> Floats:
    """Masses of consecutive grid points in an array that begins at 0 and goes round."""
    found = np.zeros(points)
    np.add.at(found, (first + np.arange(len(masses))) % points, masses)
    return found


def _rounded_down(s: Steps, width: float, points: int) -> Floats:
    """Masses of one step's losses under P, each at the grid point below."""
    # Nothing beyond nine deviations of either part counts; the highest is rounded down.
    first, edges = _loss_grid(math.log1p(-s.rate), _loss(s, 1 + 9 * s.noise), width)
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = np.log(np.maximum(np.exp(edges) - (1 - s.rate), 0.0) / s.rate)
    below = _below(s, s.noise**2 * inner + 0.5)
    below[0], below[-1] = 0.0, 1.0
    return _wrapped(first, np.diff(below), points)


def _gaussian_rounded_down(mu: float, width: float, points: int) -> Floats:
    middle = mu * mu / 2
    first, edges = _loss_grid(middle - 9 * mu, middle + 9 * mu, width)
    below = ndtr((edges - middle) / mu)
    below[0], below[-1] = 0.0, 1.0
    return _wrapped(first, np.diff(below), points)


def _loss(s: Steps, x: float) -> float:
    return float(np.logaddexp(math.log1p(-s.rate), math.log(s.rate) + (x - 0.5) / s.noise**2))


def _below(s: Steps, x: Floats) -> Floats:
    """P(X <= x) of one step."""
    return np.asarray((1 - s.rate) * ndtr(x / s.noise) + s.rate * ndtr((x - 1) / s.noise))


def _moments(s: Steps) -> tuple[float, float]:
    """Mean and variance of one step's loss under P, by the trapezoidal rule."""
    x = np.linspace(-9 * s.noise, 1 + 9 * s.noise, 20_001)
    density = (1 - s.rate) * np.exp(-((x / s.noise) ** 2) / 2)
    density += s.rate * np.exp(-(((x - 1) / s.noise) ** 2) / 2)
    density /= density.sum()
    loss = np.logaddexp(math.log1p(-s.rate), math.log(s.rate) + (x - 0.5) / s.noise**2)
    mean = float(density @ loss)
    return mean, float(density @ (loss - mean) ** 2)
