"""What remains of released vectors without their content: the noise, kept as figures to test.

An auditor who knows records, canaries and coins subtracts what they contribute, divides by the
planned standard deviation, and should be left with independent values of unit variance. For each
such *remainder* the evidence keeps:

* its mean square and mean fourth power, over all coordinates;
* mean squares by block: contiguous parts of the released vector, and each parameter tensor;
* its largest *echo*: correlation with itself, moved along by any number of places;
* a *sketch*: the values at some coordinates, the same public ones for all remainders. Any two
  rounds and any two clients can be compared by their sketches, which also show the noise's shape.

The findings are made from these (`calyx.audit.findings.measured.noise_law`); no figure is computed
here that could hide one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Arrays = dict[str, NDArray[np.generic]]

# Coordinates of a sketch: a cosine of two has a deviation of a hundredth. Fewer where the sketches
# of all remainders together would be large; below the minimum they say little.
_MOST_SKETCHED, _LEAST_SKETCHED, _SKETCHED_IN_ALL = 8192, 512, 1 << 22
# Contiguous blocks: at most this many, and none shorter than this.
_BLOCKS, _SHORTEST_BLOCK = 64, 64


class Remainders:
    """Remainders of one kind, all of one length.

    Args:
        expected: about how many there will be.
        tensors: lengths of the parameter tensors that the vector consists of, if it is known.
    """

    def __init__(self, expected: int, tensors: Sequence[int] = ()) -> None:
        self._expected, self._tensors = max(1, expected), np.array(tensors, dtype=np.int64)
        self._rows: dict[str, list[object]] = {}
        self._edges = np.zeros(0, dtype=np.int64)
        self._places = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._rows.get("stream", ()))

    def add(
        self,
        stream: int,
        number: int,
        remainder: Floats,
        *,
        kurtosis: float = 0.0,
        by_tensor: Floats | None = None,
    ) -> None:
        """Add a remainder.

        Args:
            stream: source of the noise: a client's number, or -1 for a sum.
            number: the round's number.
            remainder: (dimension,), in the coordinates in which the noise is added, of unit
                variance if the noise is as planned.
            kurtosis: excess kurtosis that the planned noise has: 0 for Gaussians, 1/v for Skellam
                noise of variance v.
            by_tensor: the same vector in the model's coordinates, where they differ.
        """
        if not len(self._places):
            self._begin(len(remainder))
        squares = remainder * remainder
        model = squares if by_tensor is None else by_tensor * by_tensor
        row: dict[str, object] = {
            "stream": stream,
            "round": number,
            "energy": squares.mean(),
            "fourth": (squares * squares).mean(),
            "kurtosis": kurtosis,
            "echo": _echo(remainder),
            "blocks": _means(squares, self._edges),
            "tensors": _means(model, np.cumsum([0, *self._tensors])),
            "sketches": remainder[self._places].astype(np.float32),
        }
        for name, value in row.items():
            self._rows.setdefault(name, []).append(value)

    def arrays(self) -> Arrays:
        """All that is kept, by name; the first axis is the remainder."""
        found: Arrays = {name: np.array(values) for name, values in self._rows.items()}
        return found | {"block-sizes": np.diff(self._edges), "tensor-sizes": self._tensors}

    def _begin(self, size: int) -> None:
        blocks = max(1, min(_BLOCKS, size // _SHORTEST_BLOCK))
        self._edges = np.linspace(0, size, blocks + 1).astype(np.int64)
        share = max(_LEAST_SKETCHED, _SKETCHED_IN_ALL // self._expected)
        chosen = np.random.default_rng(size).permutation(size)
        self._places = np.sort(chosen[: min(_MOST_SKETCHED, share)])


def _echo(x: Floats) -> float:
    """Largest absolute circular autocorrelation at a non-zero shift; 1 if all values are 0."""
    size, energy = len(x), float(x @ x)
    if not energy or size < 2:
        return float(not energy)
    spectrum = np.fft.rfft(x)
    shifted = np.fft.irfft(spectrum * spectrum.conj(), size)
    return float(np.abs(shifted[1 : size // 2 + 1]).max()) / energy


def _means(squares: Floats, edges: NDArray[np.int64]) -> Floats:
    """Mean of each part between two edges; (parts,)."""
    if len(edges) < 2:
        return np.zeros(0)
    return np.add.reduceat(squares, edges[:-1]) / np.diff(edges)
