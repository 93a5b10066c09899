"""Canary records of an audited simulation: gradients of known direction, in or out by a coin.

A canary stands for one record more, whose gradient is a direction that the auditor knows. If its
coin says so, it takes part as a record does: it is drawn into a batch by the plan's sampling rate,
clipped to the plan's norm, summed with the others, noised and sealed by the same code. What is
released can then be searched for it. Only a simulated client accepts canaries (`client.node`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError
from shared.privacy.noise import NoiseSource
from shared.privacy.plan import PrivacyPlan


@dataclass(frozen=True)
class Canaries:
    """The canaries of one client.

    Attributes:
        seed: of all directions of the audit.
        client: number of the client.
        coins: which of its canaries take part; bool (canaries,).
    """

    seed: int
    client: int
    coins: tuple[bool, ...]

    @classmethod
    def load(cls, path: Path, client: int) -> Canaries:
        """Read this client's canaries from the audit's file.

        Raises:
            DataError: it cannot be read, or has none for this client.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                coins = np.asarray(archive[f"client-{client}"], dtype=np.bool_)
                return cls(int(archive["seed"]), client, tuple(bool(coin) for coin in coins))
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"client {client} has no canaries in {path.name}: {error}") from None

    def clipped_sum(
        self, dimension: int, plan: PrivacyPlan, noise: NoiseSource
    ) -> NDArray[np.float64]:
        """Sum of this step's canaries, each clipped like a record's gradient; (dimension,)."""
        drawn = np.array(self.coins, dtype=np.bool_)
        if plan.sampling == "poisson":
            drawn &= noise.coins(len(drawn), plan.sampling_rate)
        chosen = directions(self.seed, self.client, len(self.coins), dimension)[drawn]
        gradients = plan.clip_norm * chosen.astype(np.float64)
        norms = np.linalg.norm(gradients, axis=1, keepdims=True)
        return np.asarray((gradients * np.minimum(1.0, plan.clip_norm / norms)).sum(axis=0))


@lru_cache(maxsize=64)
def directions(seed: int, client: int, count: int, dimension: int) -> NDArray[np.float32]:
    """Independent random unit vectors, float32 (count, dimension); nearly orthogonal.

    Two of them have an inner product of about 1/sqrt(dimension).
    """
    generator = np.random.default_rng([seed, client])
    drawn = generator.standard_normal((count, dimension), dtype=np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    drawn.setflags(write=False)
    return drawn
