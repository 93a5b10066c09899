"""Canaries of an audited simulation: contributions of known direction, in or out by a coin.

A canary is one more unit of privacy. For ``unit = record`` it is one more record, with a gradient
in a direction that the auditor knows: it is drawn into a batch at the plan's sampling rate,
clipped, summed with the others, noised and sealed by the same code as a record. For
``unit = client`` the client itself is the canary and sends such a direction in place of what it
would have learned. What is released can then be searched for it. Only a simulated client accepts
canaries (`calyx.client.node`).

The directions are rows of a random rotation, so they are orthogonal to each other and practically
orthogonal to everything that was chosen without knowing them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from calyx.shared.errors import DataError
from calyx.shared.privacy.noise import NoiseSource
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.privacy.rotation import Rotation

# Norm of a canary before clipping, in clip norms. Above one, so that it is clipped like the records
# that move a model most: without clipping it would weigh double.
CANARY_NORM = 2.0


@dataclass(frozen=True)
class Canaries:
    """The canaries of one client that take part; it learns of no others.

    Attributes:
        seed: of all directions of the audit.
        places: which rows of the rotation they are.
    """

    seed: int
    places: tuple[int, ...]

    @classmethod
    def load(cls, path: Path, client: int) -> Canaries:
        """Read this client's canaries from the audit's file.

        Raises:
            DataError: it cannot be read, or says nothing about this client.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                places = np.asarray(archive[f"client-{client}"], dtype=np.int64)
                return cls(int(archive["seed"]), tuple(int(place) for place in places))
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"client {client} has no canaries in {path.name}: {error}") from None

    def drawn(self, plan: PrivacyPlan, noise: NoiseSource) -> NDArray[np.int64]:
        """Places of the canaries in this step's batch: all, or by one coin each."""
        places = np.array(self.places, dtype=np.int64)
        if plan.sampling == "poisson":
            return places[noise.coins(len(places), plan.sampling_rate)]
        return places

    def summed(
        self, places: NDArray[np.int64], lengths: NDArray[np.float64], dimension: int
    ) -> NDArray[np.float64]:
        """Sum of the directions of these places, each with its length; (dimension,)."""
        by_place = np.zeros(dimension)
        by_place[places] = lengths
        return directions(self.seed, dimension).inverse(by_place)

    def stand_in(self, parameters: Iterable[torch.Tensor], clip_norm: float) -> None:
        """Move a model as a client that is itself one or more canaries (``unit = client``)."""
        moved = list(parameters)
        places = np.array(self.places, dtype=np.int64)
        lengths = np.full(len(places), CANARY_NORM * clip_norm)
        with torch.no_grad():
            add_to(moved, self.summed(places, lengths, sum(p.numel() for p in moved)))


def add_to(tensors: Iterable[torch.Tensor], vector: NDArray[np.float64]) -> None:
    """Add a flat vector to tensors, one after another, in place."""
    first = 0
    for tensor in tensors:
        part = torch.from_numpy(vector[first : first + tensor.numel()])
        tensor += part.reshape(tensor.shape).to(tensor)
        first += tensor.numel()


@lru_cache(maxsize=4)
def directions(seed: int, dimension: int) -> Rotation:
    """The rotation whose rows are the directions: ``forward(x)[place]`` is <direction, x>."""
    return Rotation(dimension, f"canaries {seed}".encode())
