"""The Skellam mechanism: integer noise that clients share, for sums that no one sees unnoised.

Skellam noise is the difference of two Poisson variables and closed under addition: k clients who
each add variance mu/k give the sum variance mu (Agarwal, Kairouz, Liu 2021).

One client: clip to L2 <= C (records or update), rotate, scale so that C becomes c grid units,
clamp coordinates, round to integers, add its share. This module has the noise and the bounds;
`calyx.shared.privacy.skellam_mechanism` chooses c and puts them together.

**Guarantee, dithered rounding** (both units). The client rounds w = floor(x + U) with fresh secret
U ~ Uniform[0,1)^d. Let x and x' be the vectors with and without the unit, |x - x'|_2 <= c; rotation
keeps this and clamping is 1-Lipschitz in each coordinate. With V = frac(x + U), uniform and
independent in each coordinate, w'_j - w_j = floor(V_j + v_j) =: k_j takes the two integers around
v_j = x'_j - x_j and has mean v_j. For fixed U both outputs are integer shifts of the same noise,
so by (1) below, with |k| <= k^2 for integers, D_a <= A sum_j k_j^2,
A = a/(2 mu) + min((2a + 5)/(4 mu^2), 3/(2 mu)). exp((a-1) D_a) is jointly convex in the pair of
distributions, so for the mixture over U it is at most its mean over U. Coordinates are
independent, and with t = (a-1)A Hoeffding's lemma gives
log E exp(t k_j^2) <= t (v_j^2 + 1/4) + t^2 (2|v_j| + 1)^2 / 8 <= (t + t^2)(v_j^2 + 1/4). Hence

    eps(a) <= A (1 + (a-1)A) (c^2 + d/4).

Rounding costs d/(4c^2) of the squared sensitivity; the worst case over U, (c + sqrt(d))^2, would
cost 2 sqrt(d)/c and four more bits a coordinate for the same epsilon.

**Guarantee, conditional rounding** (unit = client only: one vector of norm <= C is rounded).
Stochastic rounding is repeated until the norm is within `conditional_norm_bound` (Kairouz, Liu,
Steinke 2021), which is then Delta2, with Delta1 <= min(sqrt(d) Delta2, Delta2^2), in

    eps(a) <= a Delta2^2/(2 mu) + min(((2a-1) Delta2^2 + 6 Delta1)/(4 mu^2), 3 Delta1/(2 mu)).  (1)

**Poisson sampling** by rate q, for integer orders a:

    (a-1) eps'(a) = log[ (1-q)^(a-1) (aq - q + 1)
                         + sum_{l=2..a} C(a,l) (1-q)^(a-l) q^l e^((l-1) eps(l)) ]

is the binomial expansion of D_a((1-q)P + qQ || P), with E_P (Q/P)^l <= e^((l-1)eps(l)), which after
averaging over U and over the other records' coins stays true term by term. The reverse direction
is no larger, because for fixed U and coins w -> w1 + w2 - w swaps P and Q (symmetric noise shifted
by integers) and preserves counting measure (Mironov, Talwar, Zhang 2019, Theorem 5). Bounds for
arbitrary mechanisms (Zhu, Wang 2019) are not used: their factor 3 doubles epsilon.

"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gammaln, logsumexp

from calyx.shared.errors import PrivacyError
from calyx.shared.privacy.poisson import LARGEST_MEAN, poisson

Floats = NDArray[np.float64]

# Noise of larger variance is refused; the reason is beside `LARGEST_MEAN`.
LARGEST_VARIANCE = 2 * LARGEST_MEAN

# Every integer up to 256, since amplification needs all the lower orders of an order.
ORDERS = np.arange(2, 257)
# Row a, column l: log of a over l, and minus infinity where l > a.
_LOG_CHOOSE = np.where(
    ORDERS[None, :] <= ORDERS[:, None],
    gammaln(ORDERS[:, None] + 1)
    - gammaln(ORDERS[None, :] + 1)
    - gammaln(np.maximum(ORDERS[:, None] - ORDERS[None, :], 0) + 1),
    -np.inf,
)


def skellam_noise(
    generator: np.random.Generator, shape: int | tuple[int, ...], variance: float
) -> NDArray[np.int64]:
    """Independent Skellam values of mean 0, int64 of `shape`.

    Raises:
        PrivacyError: the variance is negative, not finite or above `LARGEST_VARIANCE`.
    """
    if not 0 <= variance <= LARGEST_VARIANCE:
        raise PrivacyError(
            f"Skellam noise of variance {variance:g} cannot be drawn exactly enough",
            hint=f"use a coarser grid (at most {LARGEST_VARIANCE:g})",
        )
    count = math.prod(shape) if isinstance(shape, tuple) else shape
    draws = poisson(generator, variance / 2, count) - poisson(generator, variance / 2, count)
    return draws.reshape(shape)


def tail_bound(variance: float, probability: float) -> int:
    """An integer z, close to the least, with P(|N| > z) <= `probability` for Skellam noise N.

    Chernoff with E e^(tN) = exp(v (cosh t - 1)), best at t = asinh(x/v).
    """

    def log_tail(x: float) -> float:
        growth = x * x / (math.hypot(x, variance) + variance)  # = sqrt(x^2 + v^2) - v
        return math.log(2) - x * math.asinh(x / variance) + growth

    goal = math.log(probability)
    high = 1.0
    while log_tail(high) > goal:
        high *= 2
    root = brentq(lambda x: log_tail(x) - goal, 0.0, high, xtol=1e-6 * high)
    return math.ceil(float(root) + 1e-6 * high)


def conditional_norm_bound(scaled_norm: float, dimension: int) -> float:
    """Largest L2 norm after conditional rounding of a vector of norm `scaled_norm` = c.

    min(c + sqrt(d), sqrt(c^2 + d/4 + sqrt(2 ln(1/b)) (c + sqrt(d)/2))) with b = e^(-1/2), so
    that one draw in 1/(1 - b) = 2.5 at worst succeeds (Kairouz, Liu, Steinke 2021).
    """
    c, root = scaled_norm, math.sqrt(dimension)
    return min(c + root, math.sqrt(c * c + dimension / 4 + c + root / 2))


def rdp_integer_vectors(variance: float, delta1: float, delta2: float) -> Floats:
    """Equation (1) at `ORDERS`, for integer vectors with these sensitivities."""
    a = ORDERS
    second_order = ((2 * a - 1) * delta2**2 + 6 * delta1) / (4 * variance**2)
    return np.asarray(
        a * delta2**2 / (2 * variance) + np.minimum(second_order, 1.5 * delta1 / variance)
    )


def rdp_dithered(variance: float, scaled_norm: float, dimension: int) -> Floats:
    """The bound for dithered rounding at `ORDERS`; see the module's text."""
    a = ORDERS
    slope = a / (2 * variance) + np.minimum((2 * a + 5) / (4 * variance**2), 1.5 / variance)
    return np.asarray(slope * (1 + (a - 1) * slope) * (scaled_norm**2 + dimension / 4))


def amplified(rdp: Floats, sampling_rate: float) -> Floats:
    """RDP at `ORDERS` of a symmetric mechanism on a Poisson sample; see the module's text."""
    if sampling_rate == 1:
        return rdp
    keep, take = math.log1p(-sampling_rate), math.log(sampling_rate)
    a, powers = ORDERS[:, None], ORDERS[None, :]
    terms = _LOG_CHOOSE + (a - powers) * keep + powers * take + (powers - 1) * rdp
    first = (a - 1) * keep + np.log1p((a - 1) * sampling_rate)
    return np.asarray(logsumexp(np.hstack([first, terms]), axis=1) / (ORDERS - 1))


def rdp_to_epsilon(rdp: Floats, delta: float) -> float:
    """Smallest epsilon that RDP at `ORDERS` gives (Canonne, Kamath, Steinke 2020, Prop. 12)."""
    a = ORDERS
    epsilons = rdp + np.log1p(-1 / a) - (math.log(delta) + np.log(a)) / (a - 1)
    return max(0.0, float(epsilons.min()))


def gaussian_epsilon(
    noise_multiplier: float, delta: float, *, releases: int, sampling_rate: float = 1.0
) -> float:
    """What continuous Gaussian noise costs by the same formulas: the yardstick for Skellam."""
    rdp = amplified(np.asarray(ORDERS / (2 * noise_multiplier**2)), sampling_rate)
    return rdp_to_epsilon(releases * rdp, delta)
