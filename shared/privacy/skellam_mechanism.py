"""`SkellamMechanism`: grid, clamp and noise of each client's vector, and what their sum costs.

>>> mechanism = fit_mechanism(
...     dimension=9258, clip_norm=1.0, noise_multiplier=8.5, shares=10, contributors=10,
...     releases=40, signal_norm=144.0, value_bound=32767)
>>> mechanism.epsilon(delta=1e-4) / gaussian_epsilon(8.5, 1e-4, releases=40)  # doctest: +ELLIPSIS
1.00...

The client then sends, with ``rotation`` public and everything in grid units,
``round(clamp(rotation.forward(x) / mechanism.step)) + mechanism.noise(generator)``.

**Field widths.** One client's field must hold 10 deviations of its noise, sigma c/sqrt(k), and
the clamped signal, K times over. Two BFV fields a slot (1.9x float32) leave the value bounds B
below; c/sqrt(d) is what they allow, and the last column what rounding then adds to epsilon. Four
steps a coordinate (c = 4 sqrt(d)) cost about 1 %; three fields a slot would leave less than one.

=========================  =======  ======  =====  =====  =======  =========  ==========
unit, sampling, epsilon          d     k/K  sigma   bits        B  c/sqrt(d)  of epsilon
=========================  =======  ======  =====  =====  =======  =========  ==========
record, full, 3               9258    8/10   8.40     14     8191        2.7      1.94 %
record, full, 3               9258    8/10   8.40     16    32767       10.8      0.12 %
record, full, 8               9258    8/10   3.71     14     8191        5.7      0.41 %
record, q = 0.3, 3            9258    8/10   3.29     14     8191        7.0      0.33 %
record, q = 0.05, 2.7       421642   40/50   1.35     14     8191        5.5      0.74 %
record, q = 0.05, 2.7       421642   40/50   1.35   14.4    10485        7.0      0.45 %
record, q = 0.05, 2.7       421642   25/32   1.35     16    32767       17.2      0.07 %
client, 8                   421642    8/10   3.22     14     8191        1.1     11.92 %
client, 8                   421642    8/10   3.22     16    32767        4.3      0.75 %
client, 8                   421642   25/32   3.22     16    32767        7.5      0.24 %
client, 8                   421642  80/100   3.22   13.4     5242        2.1      3.04 %
=========================  =======  ======  =====  =====  =======  =========  ==========

So take ``calyx.shared.encryption.largest_value_bound(contributors=K, fields_per_slot=2)`` for B:
wider fields cost no bytes until the second one no longer fits. Sums of 144 clipped gradients of a
small CNN on digits had norms of 6 to 9 % of 144 C, so a `signal_norm` of a quarter of the records
clamps nothing; 4.5 deviations clamp 7 in a million coordinates of the longest vector.

**Limits.** So that no field overflows, a client's noise is cut at `noise_limit`. Over all
coordinates, contributors and releases any cut has probability at most p = 1e-15 (Chernoff). Short
of that event the mechanism is the one analysed in `calyx.shared.privacy.skellam`, so it is
(eps, delta)-private with delta = delta_rdp + (1 + e^eps) p; `epsilon` accounts for it, and a ledger
for each run in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calyx.shared.errors import PrivacyError
from calyx.shared.privacy.skellam import (
    LARGEST_VARIANCE,
    Floats,
    amplified,
    conditional_norm_bound,
    rdp_dithered,
    rdp_integer_vectors,
    rdp_to_epsilon,
    skellam_noise,
    tail_bound,
)

_CUT_PROBABILITY = 1e-15
# A rotated coordinate of a vector of norm L has standard deviation L/sqrt(d); beyond this many of
# them it is clamped: about 7 in a million coordinates of the longest vector expected.
_CLAMP_DEVIATIONS = 4.5
# Noise multipliers are rounded up to this many parts of one, as in `calyx.shared.privacy.plan`.
_MULTIPLIER_GRID = 10_000


@dataclass(frozen=True)
class SkellamMechanism:
    """What each client rounds and adds, and what the sum then costs. Made by `fit_mechanism`.

    Attributes:
        rounding: ``dithered``, or ``conditional`` for unit = client.
        dimension: d, entries of the vector.
        clip_norm: C, L2 bound of one unit's contribution.
        noise_multiplier: standard deviation of the honest clients' noise together, over C.
        scaled_norm: c, C in grid units; the grid step is C/c.
        shares: k, honest contributors the guarantee counts on; each adds variance mu/k.
        contributors: most contributors of a sum.
        releases: sums released in the whole run.
        clamp: bound of a coordinate before noise, in grid units.
    """

    rounding: Literal["dithered", "conditional"]
    dimension: int
    clip_norm: float
    noise_multiplier: float
    scaled_norm: float
    shares: int
    contributors: int
    releases: int
    clamp: int

    def __post_init__(self) -> None:
        reals = (self.clip_norm, self.noise_multiplier, self.scaled_norm)
        counts = (self.dimension, self.shares, self.contributors, self.releases, self.clamp)
        if (
            self.rounding not in ("dithered", "conditional")
            or not all(math.isfinite(x) and x > 0 for x in reals)
            or not all(type(n) is int and n >= 1 for n in counts)
            or self.shares > self.contributors
        ):
            raise PrivacyError(f"this is not a valid Skellam mechanism: {self}")
        if self.share_variance > LARGEST_VARIANCE:
            # Found when the plan is read, and not when the round has been charged.
            raise PrivacyError(
                f"a share of the noise has variance {self.share_variance:g}; at most "
                f"{LARGEST_VARIANCE:g} can be drawn",
                hint="use a coarser grid",
            )

    @property
    def step(self) -> float:
        """Grid step: one integer step in the units of the vector."""
        return self.clip_norm / self.scaled_norm

    @property
    def variance(self) -> float:
        """mu: variance of the honest clients' noise together, in grid units squared."""
        return (self.noise_multiplier * self.scaled_norm) ** 2

    @property
    def rounding_overhead(self) -> float:
        """How much more noise rounding to the grid takes, as a share: 0.01 is one per cent.

        The squared sensitivity is c^2 + d/4 instead of c^2 (dithered rounding).
        """
        return math.sqrt(1 + self.dimension / (4 * self.scaled_norm**2)) - 1

    @property
    def share_variance(self) -> float:
        """Variance of one client's noise."""
        return self.variance / self.shares

    @property
    def noise_limit(self) -> int:
        """Bound of one coordinate of one client's noise."""
        places = self.dimension * self.contributors * self.releases
        return _noise_limit(self.share_variance, places)

    @property
    def value_bound(self) -> int:
        """Bound of what one client sends in one coordinate."""
        return self.clamp + self.noise_limit

    @property
    def norm_bound(self) -> float:
        """Bound to round within; infinite for dithered rounding, which has none."""
        if self.rounding == "dithered":
            return math.inf
        return conditional_norm_bound(self.scaled_norm, self.dimension)

    def noise(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """One client's share for one release: int64 (dimension,)."""
        draws = skellam_noise(generator, self.dimension, self.share_variance)
        return np.clip(draws, -self.noise_limit, self.noise_limit)

    def rdp(self, sampling_rate: float = 1.0, *, shift: int = 1) -> Floats:
        """Rényi differential privacy of one release at `ORDERS`.

        Args:
            sampling_rate: of the Poisson sample that it is made from.
            shift: how far two neighbours' vectors are apart, in units of C: 1 where one is zero, 2
                where both are any two of norm C. Dithered rounding adds d/4 to the square of
                either distance; after conditional rounding each vector is within the norm bound,
                so two are within twice that.
        """
        if self.rounding == "dithered":
            rdp = rdp_dithered(self.variance, shift * self.scaled_norm, self.dimension)
        else:
            delta2 = shift * self.norm_bound
            delta1 = min(math.sqrt(self.dimension) * delta2, delta2**2)
            rdp = rdp_integer_vectors(self.variance, delta1, delta2)
        return amplified(rdp, sampling_rate)

    def epsilon(
        self, delta: float, *, releases: int | None = None, sampling_rate: float = 1.0
    ) -> float:
        """Epsilon of that many releases, by default all; infinite if delta is too small."""
        count = self.releases if releases is None else releases
        return epsilon_with_cuts(count * self.rdp(sampling_rate), delta, count / self.releases)


def epsilon_with_cuts(rdp: Floats, delta: float, runs: float) -> float:
    """Epsilon of composed RDP at `ORDERS`, with what cutting the noise adds to delta.

    A cut costs (1 + e^eps) p of delta. eps depends on what is left, so one more is allowed for.

    Args:
        rdp: of all releases together.
        delta: in all.
        runs: how many runs' releases these are, each of probability p of any cut; a part of one
            counts as one.
    """
    cut = max(1.0, runs) * _CUT_PROBABILITY
    first = rdp_to_epsilon(rdp, delta)
    spare = delta - (1 + math.exp(min(first + 1, 700.0))) * cut
    epsilon = rdp_to_epsilon(rdp, spare) if spare > 0 else math.inf
    return epsilon if epsilon <= first + 1 else math.inf


def fit_mechanism(
    *,
    dimension: int,
    clip_norm: float,
    noise_multiplier: float,
    shares: int,
    contributors: int,
    releases: int,
    signal_norm: float,
    value_bound: int,
    rounding: Literal["dithered", "conditional"] = "dithered",
) -> SkellamMechanism:
    """The finest grid on which clamped signal and noise of one client fit `value_bound`.

    Fields of many bits (more than 64 contributors, or `bits` near the top of its range) would
    allow grids finer than noise can be drawn on, so the sampler bounds the grid as well. At that
    bound a share has a deviation of above 10^5 steps, and rounding costs nothing to speak of.

    Args:
        signal_norm: longest vector expected of one client, over `clip_norm`: at most its number
            of records (unit = record), 1 for unit = client. A longer one is clamped more often,
            which costs accuracy and no privacy.
        value_bound: largest absolute value that a field takes, see
            ``calyx.shared.encryption.largest_value_bound``.
        Others: see `SkellamMechanism`.

    Raises:
        PrivacyError: not even a grid step of C fits; the message says what to change.
    """
    # c at which a share's variance, (sigma c)^2 / k, is the most that can be drawn.
    finest = math.sqrt(LARGEST_VARIANCE * shares) / noise_multiplier * (1 - 1e-9)

    def on_grid(scaled_norm: float) -> SkellamMechanism:
        spread = signal_norm * scaled_norm / math.sqrt(dimension)
        return SkellamMechanism(
            rounding=rounding,
            dimension=dimension,
            clip_norm=clip_norm,
            noise_multiplier=noise_multiplier,
            scaled_norm=scaled_norm,
            shares=shares,
            contributors=contributors,
            releases=releases,
            clamp=math.ceil(_CLAMP_DEVIATIONS * spread),
        )

    def fits(scaled_norm: float) -> bool:
        return scaled_norm <= finest and on_grid(scaled_norm).value_bound <= value_bound

    if not signal_norm > 0 or not fits(1.0):
        raise PrivacyError(
            f"noise multiplier {noise_multiplier:g} over {shares} shares does not fit fields up to "
            f"{value_bound}",
            hint="raise secure_aggregation.bits or min_contributors",
        )
    low, high = 1.0, 2.0
    while fits(high):
        low, high = high, 2 * high
    # The value bound grows with c in steps; a thousandth of a bit is close enough.
    while high / low > 1.0005:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits(middle) else (low, middle)
    # Few digits, so that it prints and hashes the same everywhere.
    return replace(on_grid(low), scaled_norm=math.floor(low * 1000) / 1000)


def calibrate_mechanism(
    fit: Callable[[float], SkellamMechanism],
    *,
    epsilon: float,
    delta: float,
    sampling_rate: float = 1.0,
) -> SkellamMechanism:
    """The mechanism with the least noise that keeps (epsilon, delta) over all its releases.

    Args:
        fit: `fit_mechanism` as a function of the noise multiplier alone.

    Raises:
        PrivacyError: no noise that fits the fields keeps the promise.
    """

    def keeps(noise_multiplier: float) -> bool:
        return fit(noise_multiplier).epsilon(delta, sampling_rate=sampling_rate) <= epsilon

    high = 1.0
    # More noise leaves a coarser grid, and `fit` ends the search where none is left.
    while not keeps(high):
        high *= 1.5
    low = high / 1.5
    while keeps(low):
        low, high = low / 1.5, low
    while high / low > 1.0002:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if keeps(middle) else (middle, high)
    return fit(math.ceil(high * _MULTIPLIER_GRID) / _MULTIPLIER_GRID)


@lru_cache(maxsize=256)
def _noise_limit(share_variance: float, places: int) -> int:
    return tail_bound(share_variance, _CUT_PROBABILITY / places)
