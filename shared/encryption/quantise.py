"""Real vectors to bounded integers and sums of them back: clip, scale, clamp, round.

>>> grid = IntegerGrid(step=0.001, clamp=6000)
>>> integers = dithered_rounding(grid.scaled(x), generator)
>>> total = grid.restored(sum_of_integers)

Both roundings are unbiased but for the condition, and need randomness that stays secret. Why each
is private together with integer noise is in `calyx.shared.privacy.skellam`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calyx.shared.errors import EncryptionError

_MAX_ATTEMPTS = 200


@dataclass(frozen=True)
class IntegerGrid:
    """A grid of equal steps, cut off on both sides.

    Attributes:
        step: distance of neighbouring grid points, in the units of the vector.
        clamp: coordinates beyond this many steps are set to it.

    Raises:
        EncryptionError: a value is not positive, or the clamp is beyond what doubles can count.
    """

    step: float
    clamp: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.step) and self.step > 0 and 1 <= self.clamp <= 2**52):
            raise EncryptionError(
                f"step {self.step} and clamp {self.clamp} do not make a usable grid"
            )

    def scaled(self, x: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """`x` in steps, float64 of the same shape, clamped; 1-Lipschitz in each coordinate.

        Raises:
            EncryptionError: `x` holds NaN or infinity.
        """
        self._check(x)
        return np.clip(x.astype(np.float64) / self.step, -float(self.clamp), float(self.clamp))

    def clamped_share(self, x: NDArray[np.floating[Any]]) -> float:
        """Share of coordinates that the clamp changes. It depends on `x`: not for sending."""
        self._check(x)
        return float(np.mean(np.abs(x.astype(np.float64)) > self.clamp * self.step))

    def restored(self, integers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Integers, or sums of them, in the units of the vector."""
        return integers.astype(np.float64) * np.float64(self.step)

    def _check(self, x: NDArray[np.floating[Any]]) -> None:
        if not np.isfinite(x).all():
            raise EncryptionError(
                "a vector to quantise holds NaN or infinity",
                hint="lower the step size",
            )


def clipped(x: NDArray[np.floating[Any]], norm: float) -> NDArray[np.float64]:
    """`x` in float64, scaled down so that its L2 norm is at most `norm`.

    Raises:
        EncryptionError: `x` holds NaN or infinity.
    """
    y = x.astype(np.float64)
    length = float(np.linalg.norm(y))
    if not math.isfinite(length):
        raise EncryptionError("a vector to clip holds NaN or infinity", hint="lower the step size")
    # A few units in the last place shorter, so that rounding cannot put the norm above.
    return y if length <= norm else y * (norm / length * (1 - 1e-12))


def contribution(x: NDArray[np.floating[Any]], norm: float) -> NDArray[np.float64]:
    """`clipped`, but a vector without a finite norm counts as zero.

    For values that are noised afterwards: an error, or one that is left out, would tell it apart.
    """
    with np.errstate(over="ignore"):  # of squares beyond double precision
        is_finite = math.isfinite(float(np.linalg.norm(x.astype(np.float64))))
    return clipped(x if is_finite else np.zeros_like(x), norm)


def dithered_rounding(
    scaled: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """floor(x + U), U uniform on [0, 1) in each coordinate; int64 of the same shape, mean x.

    Of a clamped vector no result is beyond the clamp, which is an integer.
    """
    below = np.floor(scaled)
    # x + U itself would be rounded to the next double, sometimes up to an integer.
    ups = generator.random(scaled.shape) < scaled - below
    return below.astype(np.int64) + ups


def bounded_rounding(
    scaled: NDArray[np.float64], norm_bound: float, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Stochastic rounding on the condition that the L2 norm is at most `norm_bound`.

    Draws again until it is (Kairouz, Liu, Steinke 2021); with their bound that takes
    2.5 draws at worst on average.

    Raises:
        EncryptionError: 200 draws were all too long; the vector was not clipped before.
    """
    for _ in range(_MAX_ATTEMPTS):
        integers = dithered_rounding(scaled, generator)
        if float(np.linalg.norm(integers)) <= norm_bound:
            return integers
    raise EncryptionError(
        f"a vector of norm {float(np.linalg.norm(scaled)):.6g} does not round to one within "
        f"{norm_bound:.6g} grid steps",
        hint="clip it first",
    )
