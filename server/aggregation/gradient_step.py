"""The server's step along a released sum of gradients: SGD with momentum.

It works on released values only, so it costs no privacy.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from calyx.shared.config.schema import FederationConfig
from calyx.shared.protocol.arrays import NDArray

Vector = np.ndarray[tuple[int], np.dtype[np.float64]]


class ServerGradientStep:
    """The server's optimiser over the rounds of one run, with its state open to checkpoints."""

    def __init__(self, config: FederationConfig) -> None:
        self._rate, self._momentum = config.server_learning_rate, config.server_momentum
        self._velocity: Vector | None = None

    def step(self, gradient: Vector, factor: float = 1.0) -> Vector:
        """What to add to the weights, float64 (dimension,); the rate is multiplied by `factor`."""
        before = 0.0 if self._velocity is None else self._momentum * self._velocity
        self._velocity = before + gradient
        return np.asarray(-self._rate * factor * self._velocity)

    def state(self) -> dict[str, NDArray]:
        """For the checkpoint."""
        kept = self._velocity is not None and self._momentum > 0
        return {"union.velocity": np.asarray(self._velocity)} if kept else {}

    def restore(self, state: Mapping[str, NDArray]) -> None:
        """Inverse of `state`."""
        self._velocity = state.get("union.velocity")
