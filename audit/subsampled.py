"""Trade-off curves of Poisson-sampled Gaussian steps, as hypotheses for `calyx.audit.bounds.fdp`.

The steps and the sampling rate are those of the run; the noise is what the audit asks about. The
hypotheses are numbered by the mu that many small steps give (Dong, Roth, Su 2019, Corollary
5.4), mu = q sqrt(T (e^(1/s^2) - 1)), only to have them evenly spaced; their curves come from the
PLD accountant.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from calyx.audit.bounds.trade_off import ProfileCurve
from calyx.shared.privacy.accounting import profile

# From next to nothing to far beyond what any number of canaries could show, 2 % apart.
_MU = np.geomspace(0.05, 12.0, 278)
HYPOTHESES = len(_MU)
_EPSILONS = np.concatenate([[0.0], np.geomspace(1e-3, 80.0, 400)])


def subsampled(rate: float, steps: int) -> Callable[[int], ProfileCurve]:
    """The hypotheses for these steps at this sampling rate, see `fdp.lower_bound_among`."""
    return lambda number: _curve(rate, steps, number)


def noise_of(number: int, rate: float, steps: int) -> float:
    """Noise multiplier of a hypothesis."""
    return 1 / math.sqrt(math.log1p((_MU[number] / rate) ** 2 / steps))


def curve_of(noise_multiplier: float, rate: float, steps: int) -> ProfileCurve:
    """The trade-off curve of a known mechanism.

    Raises:
        PrivacyError: so little noise cannot be accounted.
    """
    return ProfileCurve(_EPSILONS, profile(noise_multiplier, rate, steps, _EPSILONS))


@lru_cache(maxsize=1024)
def _curve(rate: float, steps: int, number: int) -> ProfileCurve:
    return curve_of(noise_of(number, rate, steps), rate, steps)
