"""Is what remains of released vectors the planned noise: its size, shape, place and novelty?

`calyx.audit.attacks.noise.remainders` leaves values that should be independent, of unit variance,
and Gaussian or Skellam. Six tests, each two-sided and at `NOISE_LEVEL` for all that it looks at:

==============  ==================================================================================
`energy`        mean square of all values; noise of another size, or records that weigh too much
`part`          mean square of each remainder, each contiguous block and each parameter tensor, the
                worst of them; noise that is missing in one layer, one round or one client
`kurtosis`      fourth moment; the sum of K uniform shares has an excess kurtosis of -1.2/K, of K
                coins -2/K, and noise that is too large here and too small there one above 0
`histogram`     chi-square over 32 bins of equal chance; any other shape
`cosine`        of every two remainders; noise that is used twice, at any time and by any client
`echo`          of each remainder with itself, moved along; noise that is used twice in one vector,
                or that neighbours share
==============  ==================================================================================

Sizes have a tolerance of a thousandth and the kurtosis one of a hundredth, for what rounding to the
grid and single precision add.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import chi2, norm

from calyx.audit.section import Section

Floats = NDArray[np.float64]

# Chance that noise that follows the plan fails one test.
NOISE_LEVEL = 1e-4
# Relative size of what rounding to the grid, and single precision in the gradients, may add.
_ROUNDING = 1e-3
_KURTOSIS_MARGIN = 0.01
_BINS = 32


class Remainder(Section):
    """Released vectors less everything but the noise, as the auditor alone can compute it."""

    vectors: int = Field(description="sums, or updates of single clients")
    energy_ratio: float = Field(description="squared norm over what the plan's noise would give")
    energy_p_value: float = Field(description="two-sided")
    worst_part: str = Field(description="round, client, block or tensor furthest from its energy")
    part_ratio: float = Field(description="its squared norm over the planned one")
    part_p_value: float = Field(description="two-sided, for the worst of all parts")
    excess_kurtosis: float = Field(description="of all values, less that of the planned noise")
    kurtosis_p_value: float = Field(description="two-sided")
    histogram_p_value: float = Field(description="chi-square over bins of equal chance")
    largest_cosine: float = Field(description="of any two remainders, absolute")
    pairs: int = Field(description="pairs of remainders that were compared")
    cosine_p_value: float
    largest_echo: float = Field(
        description="correlation of a remainder with itself, moved along by any number of places"
    )
    echo_p_value: float
    as_planned: bool


def remains(arrays: Mapping[str, NDArray[Any]]) -> Remainder:
    """Test remainders against the planned noise; see the module's text.

    Args:
        arrays: as `calyx.audit.attacks.noise.remainders.Remainders.arrays` gives them.
    """
    sizes = arrays["block-sizes"]
    dimension, count = int(sizes.sum()), len(arrays["energy"])
    energies, sketches = arrays["energy"].astype(float), arrays["sketches"].astype(float)
    ratio = float(energies.mean())
    energy_p = float(energy_p_values(np.array([ratio]), np.array([dimension * count]))[0])
    part, part_ratio, part_p = _worst_part(arrays, dimension)
    excess, kurtosis_p = _kurtosis(arrays, dimension)
    histogram_p = _histogram(sketches, float(arrays["kurtosis"].mean()))
    largest, pairs, cosine_p = all_pairs(sketches)
    echo = float(arrays["echo"].max())
    # Each of d/2 shifts gives a normal value of deviation 1/sqrt(d); the shift by d/2 gives one of
    # twice this variance.
    chances = dimension * norm.sf(echo * math.sqrt(dimension))
    chances += 2 * norm.sf(echo * math.sqrt(dimension / 2))
    echo_p = min(1.0, count * float(chances))
    tests = (energy_p, part_p, kurtosis_p, histogram_p, cosine_p, echo_p)
    return Remainder(
        vectors=count,
        energy_ratio=ratio,
        energy_p_value=energy_p,
        worst_part=part,
        part_ratio=part_ratio,
        part_p_value=part_p,
        excess_kurtosis=excess,
        kurtosis_p_value=kurtosis_p,
        histogram_p_value=histogram_p,
        largest_cosine=largest,
        pairs=pairs,
        cosine_p_value=cosine_p,
        largest_echo=echo,
        echo_p_value=echo_p,
        as_planned=min(tests) >= NOISE_LEVEL,
    )


def energy_p_values(ratios: Floats, freedoms: NDArray[Any]) -> Floats:
    """Two-sided chances of mean squares of n unit Gaussians, beyond what rounding may add.

    The third root of a chi-square over its freedom n is nearly normal (Wilson, Hilferty 1931).
    """
    nearer = 1 + np.sign(ratios - 1) * np.maximum(np.abs(ratios - 1) - _ROUNDING, 0)
    corner = 2 / (9 * np.maximum(freedoms, 1))
    return np.asarray(2 * norm.sf(np.abs(np.cbrt(nearer) - (1 - corner)) / np.sqrt(corner)))


def all_pairs(vectors: Floats) -> tuple[float, int, float]:
    """Largest absolute cosine of two rows, number of pairs, and the chance of one this large.

    The cosine of two independent vectors is normal with deviation 1/sqrt(d); the largest of n is
    held to an n-th of the level. A vector of zeros has a cosine of 1 with every other.
    """
    count, size = vectors.shape
    if count < 2:
        return 0.0, 0, 1.0
    norms = np.linalg.norm(vectors, axis=1)
    unit = vectors / np.where(norms > 0, norms, 1.0)[:, None]
    largest = 1.0 if (norms == 0).any() else 0.0
    for first in range(count - 1):
        largest = max(largest, float(np.abs(unit[first + 1 :] @ unit[first]).max()))
    pairs = count * (count - 1) // 2
    chance = 2 * float(norm.sf(largest * math.sqrt(size))) * pairs
    return largest, pairs, min(1.0, chance)


def _worst_part(arrays: Mapping[str, NDArray[Any]], dimension: int) -> tuple[str, float, float]:
    count = len(arrays["energy"])
    names = [
        f"round {number}" + (f", client {stream}" if stream >= 0 else "")
        for number, stream in zip(arrays["round"], arrays["stream"], strict=True)
    ]
    ratios, freedoms = [arrays["energy"].astype(float)], [np.full(count, dimension)]
    for kind, sizes in (("block", arrays["block-sizes"]), ("tensor", arrays["tensor-sizes"])):
        if not len(sizes):
            continue
        names += [f"{kind} {place + 1} of {len(sizes)}" for place in range(len(sizes))]
        ratios.append(arrays[f"{kind}s"].astype(float).mean(axis=0))
        freedoms.append(sizes * count)
    ratio = np.concatenate(ratios)
    p_values = energy_p_values(ratio, np.concatenate(freedoms))
    worst = int(p_values.argmin())
    return names[worst], float(ratio[worst]), min(1.0, float(p_values[worst]) * len(names))


def _kurtosis(arrays: Mapping[str, NDArray[Any]], dimension: int) -> tuple[float, float]:
    """Excess over the planned kurtosis, and its chance (Anscombe, Glynn 1983).

    The mean is that of one remainder's fourth moment over its squared second one; spread and
    skewness are those of as many values as there are in all.
    """
    energies = arrays["energy"].astype(float)
    if not energies.all():
        return -3.0, 0.0  # no value at all differs from 0 in some round: that is no noise
    scaled = arrays["fourth"].astype(float) / energies**2
    mean = 3 * (dimension - 1) / (dimension + 1)
    excess = float(scaled.mean()) - mean - float(arrays["kurtosis"].mean())
    beyond = math.copysign(max(abs(excess) - _KURTOSIS_MARGIN, 0.0), excess)
    n = float(dimension * len(energies))
    variance = 24 * n * (n - 2) * (n - 3) / ((n + 1) ** 2 * (n + 3) * (n + 5))
    skew = 6 * (n * n - 5 * n + 2) / ((n + 7) * (n + 9))
    skew *= math.sqrt(6 * (n + 3) * (n + 5) / (n * (n - 2) * (n - 3)))
    freedom = 6 + 8 / skew * (2 / skew + math.sqrt(1 + 4 / skew**2))
    x = beyond / math.sqrt(variance)
    below = 1 + x * math.sqrt(2 / (freedom - 4))
    root = math.copysign(((1 - 2 / freedom) / abs(below)) ** (1 / 3), below)
    deviation = (1 - 2 / (9 * freedom) - root) / math.sqrt(2 / (9 * freedom))
    return excess, float(2 * norm.sf(abs(deviation)))


def _histogram(values: Floats, kurtosis: float) -> float:
    """Chance of a histogram this uneven; bins of equal chance, by Edgeworth for integer noise."""
    edges = norm.ppf(np.arange(1, _BINS) / _BINS)
    below = norm.cdf(edges) - kurtosis / 24 * (edges**3 - 3 * edges) * norm.pdf(edges)
    chances = np.diff(below, prepend=0.0, append=1.0)
    counts = np.bincount(np.searchsorted(edges, values.ravel()), minlength=_BINS)
    expected = values.size * chances
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), _BINS - 1))
