"""A running average of the global model: what is evaluated and kept, while clients train on.

Noise that DP adds to each round moves the model about a good point; averaging over rounds takes
most of it out again. It only uses what was released, so it costs no privacy. The warm-up keeps
the first, random rounds out (De et al. 2022, "Unlocking High-Accuracy Differentially Private
Image Classification through Scale", appendix C).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from calyx.shared.protocol.arrays import NDArray, Weights


class RunningAverage:
    """Exponential average with decay min(decay, (1 + t)/(10 + t)) after t rounds.

    Args:
        decay: 0 switches averaging off: the average is then the newest model.
        frozen: names of arrays that never change; a mean of equal values could round them.
    """

    def __init__(self, decay: float, frozen: Collection[str] = ()) -> None:
        self._decay, self._frozen = decay, frozenset(frozen)
        self._average: Weights | None = None

    def update(self, server_round: int, weights: Weights) -> Weights:
        """Take in the model of a round and return the average, in the model's own types."""
        if self._average is None or self._decay == 0:
            self._average = weights
            return weights
        decay = min(self._decay, (1 + server_round) / (10 + server_round))
        self._average = {
            name: value if name in self._frozen else _mean(self._average[name], value, decay)
            for name, value in weights.items()
        }
        return self._average

    def state(self) -> dict[str, NDArray]:
        """For the checkpoint; empty where averaging is off."""
        return dict(self._average) if self._average is not None and self._decay else {}

    def restore(self, state: Mapping[str, NDArray]) -> None:
        """Inverse of `state`."""
        self._average = dict(state) or None


def _mean(old: NDArray, new: NDArray, decay: float) -> NDArray:
    """Average floats; counters and the like are taken from the newest model."""
    if new.dtype.kind != "f":
        return new
    return np.asarray(decay * old + (1 - decay) * new, dtype=new.dtype).reshape(new.shape)
