"""Between real vectors and the integers of a sealed sum, alike for client, server and audit.

A vector is rotated (public, so that its coordinates are of one size) and put on an integer grid.
Rotation, grid step, largest integer and packing all follow from the configuration and the plan;
whatever seals, restores or examines a sum takes them from here.

>>> coding = SumCoding.of(config, plan, dimension, server_round)
>>> integers = dithered_rounding(coding.scaled(vector), generator)
>>> total = coding.restored(sum_of_integers)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calyx.shared.config import Config
from calyx.shared.encryption import SealingParameters
from calyx.shared.encryption.quantise import IntegerGrid
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.privacy.rotation import Rotation
from calyx.shared.protocol.sealed.messages import rotation_seed, sealing_parameters


def sum_grid(config: Config, plan: PrivacyPlan, parameters: SealingParameters) -> IntegerGrid:
    """The grid of a run: that of the distributed noise, else the whole room of a packed value."""
    if plan.mechanism is not None:
        return IntegerGrid(plan.mechanism.step, plan.mechanism.clamp)
    bound = parameters.value_bound
    return IntegerGrid(config.secure_aggregation.clamp / bound, bound)


@dataclass(frozen=True)
class SumCoding:
    """How vectors of one round become integers, and sums of integers vectors.

    Attributes:
        parameters: how the integers are packed and encrypted.
        grid: of the rotated vector's coordinates.
        rotation: of this round.
    """

    parameters: SealingParameters
    grid: IntegerGrid
    rotation: Rotation

    @classmethod
    def of(cls, config: Config, plan: PrivacyPlan, dimension: int, server_round: int) -> SumCoding:
        """The coding of vectors of `dimension` entries in one round.

        Raises:
            EncryptionError: the run is not sealed, or its sums do not fit any parameters.
        """
        parameters = sealing_parameters(config, plan, dimension)
        grid = sum_grid(config, plan, parameters)
        return cls(parameters, grid, Rotation(dimension, rotation_seed(config, server_round)))

    def scaled(self, vector: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """A vector (dimension,) rotated and in grid steps, to be rounded."""
        return self.grid.scaled(self.rotation.forward(vector))

    def restored(self, integers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Integers (dimension,), or sums of them, in the units of the vectors."""
        return self.rotation.inverse(self.grid.restored(integers))
