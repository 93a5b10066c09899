"""Trade-off curves as hypotheses: how well can anyone tell "in" from "out"?

A curve f bounds every test: with a share a of false alarms it misses at least f(a). Auditing needs
its complement the other way round: the least share of false alarms of a test with a given power
(Dong, Roth, Su 2019; Mahloujifar, Melis, Chaudhuri 2024 write f-bar^-1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from calyx.audit.bounds.gdp import epsilon_of

Floats = NDArray[np.float64]


class Curve(Protocol):
    """One hypothesis about a mechanism, or an array of hypotheses that are judged together."""

    def least_false_alarms(self, power: Floats) -> Floats:
        """Of a test with this power; the same shape."""
        ...

    def epsilon(self, delta: float) -> float:
        """The epsilon of the curve at `delta`; in an array, of the largest curve."""
        ...


@dataclass(frozen=True)
class GaussianCurve:
    """Two unit Gaussians at a distance: full batches, exactly.

    Attributes:
        mu: distances, (n,), growing.
    """

    mu: Floats

    def least_false_alarms(self, power: Floats) -> Floats:
        """Phi(Phi^-1(power) - mu)."""
        return np.asarray(ndtr(ndtri(power) - self.mu))

    def epsilon(self, delta: float) -> float:
        """See `Curve`."""
        return epsilon_of(float(self.mu[-1]), delta)


@dataclass(frozen=True)
class ProfileCurve:
    """The curve of a privacy profile delta(epsilon), whatever the mechanism.

    Every (epsilon, delta) that holds bounds the false alarms of a test from below, by two lines;
    the curve is the largest of them (Dong, Roth, Su 2019, Proposition 2.12). A grid of epsilons
    leaves lines out, and a pessimistic accountant raises delta: both make the hypothesis weaker,
    so that rejecting it remains right.

    Attributes:
        epsilons: (n,), growing from 0.
        deltas: (n,), falling.
    """

    epsilons: Floats
    deltas: Floats

    def __post_init__(self) -> None:
        if self.epsilons.shape != self.deltas.shape or not (np.diff(self.epsilons) > 0).all():
            raise ValueError("a profile needs growing epsilons and a delta for each")

    def least_false_alarms(self, power: Floats) -> Floats:
        """max over epsilon of (x - delta) e^-eps, 1 - delta - e^eps (1 - x), and 0; x the power."""
        x = np.asarray(power)[..., None]
        few = (x - self.deltas) / self._ratios
        many = 1 - self.deltas - self._ratios * (1 - x)
        return np.asarray(np.maximum(few, many).max(axis=-1).clip(0.0))

    @cached_property
    def _ratios(self) -> Floats:
        """e^epsilon, kept finite: a line that is steeper than that bounds nothing."""
        return np.exp(np.minimum(self.epsilons, 700.0))

    def epsilon(self, delta: float) -> float:
        """Between grid points along a chord of log delta, which lies below the curve."""
        if self.deltas[0] <= delta:
            return 0.0
        logs = np.log(np.maximum(self.deltas, 1e-300))
        return float(np.interp(-np.log(delta), -logs, self.epsilons))
