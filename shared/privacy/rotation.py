"""Randomised Walsh-Hadamard rotation: spreads a vector evenly over its coordinates.

A rotated vector of norm L in d dimensions has coordinates of about L/√d, whatever it looked like
before (Ailon and Chazelle 2006), so a narrow integer field holds each of them. The rotation is
public and linear and preserves the L2 norm: it costs no privacy and gives none.

>>> turn = Rotation(1000, b"run 7, round 3")
>>> np.allclose(turn.inverse(turn.forward(x)), x)
True

Lengths need not be powers of two. Random signs and an orthonormal Walsh-Hadamard transform are
applied to the first 2^m coordinates, then to the last 2^m, then to the first again, with 2^m the
largest power of two that fits. Each pass is orthogonal, the windows overlap, so every input
reaches every output and no padding has to be sent.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from calyx.shared.errors import PrivacyError


class Rotation:
    """One rotation of vectors of `length`, given by a public `seed`.

    Results are bit-identical on every machine: only additions, in a fixed order.

    Raises:
        PrivacyError: the length is below 1.
    """

    def __init__(self, length: int, seed: bytes) -> None:
        if length < 1:
            raise PrivacyError(f"a vector of {length} entries cannot be rotated")
        self._length = length
        size = 1 << (length.bit_length() - 1)
        starts = [0] if size == length else [0, length - size, 0]
        self._passes = [
            (slice(start, start + size), _signs(seed, number, size) / math.sqrt(size))
            for number, start in enumerate(starts)
        ]

    def forward(self, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """Rotate float (length,); returns float64 (length,) of the same L2 norm."""
        y = self._copy_of(x)
        for window, signs in self._passes:
            y[window] = _walsh_hadamard(y[window] * signs)
        return y

    def inverse(self, y: NDArray[np.floating]) -> NDArray[np.float64]:
        """Undo `forward`, to double precision."""
        x = self._copy_of(y)
        for window, signs in reversed(self._passes):
            # The transform is its own inverse up to the scale, which is in the signs.
            x[window] = _walsh_hadamard(x[window]) * signs
        return x

    def _copy_of(self, x: NDArray[np.floating]) -> NDArray[np.float64]:
        if x.shape != (self._length,):
            raise PrivacyError(f"a rotation of {self._length} entries was given shape {x.shape}")
        return x.astype(np.float64)


def _signs(seed: bytes, number: int, size: int) -> NDArray[np.float64]:
    """+1 or -1 each, from SHAKE-256: the same whatever the version of NumPy."""
    stream = hashlib.shake_256(b"calyx rotation v1" + bytes([number]) + seed)
    bits = np.unpackbits(np.frombuffer(stream.digest(-(-size // 8)), dtype=np.uint8), count=size)
    return 1 - 2 * bits.astype(np.float64)


def _walsh_hadamard(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unnormalised transform of 2^m values, in the constant-geometry form: m equal steps."""
    half = len(x) // 2
    y, z = x.copy(), np.empty_like(x)
    for _ in range(len(x).bit_length() - 1):
        np.add(y[0::2], y[1::2], out=z[:half])
        np.subtract(y[0::2], y[1::2], out=z[half:])
        y, z = z, y
    return y
