"""Log-mel spectrograms with fixed, public parameters.

A frame is 25 ms under a Hann window, every 10 ms. Its power spectrum is summed under triangles that
are evenly spaced on the mel scale m = 2595 log10(1 + f / 700) (O'Shaughnessy 1987), from 20 Hz to
half the sampling rate. Decibels relative to a full-scale sine, from -80 to 0, become 0 to 1.
Nothing is taken from other recordings: no mean, no loudest value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FRAME_S, _HOP_S = 0.025, 0.010
_LOWEST_HZ = 20.0
_FLOOR_DB = -80.0
# Values are rounded to this step. Logarithms and transforms differ in the last bit between
# processors, and a device's ledger belongs to records that are the same bit for bit.
_STEPS = 1024


class LogMel:
    """Spectrograms of one sampling rate and length.

    Args:
        rate: samples a second.
        samples: of a recording; shorter ones are padded with silence, longer ones are cut.
        mels: bands.
    """

    def __init__(self, rate: int, samples: int, mels: int) -> None:
        self._frame, self._hop = round(_FRAME_S * rate), round(_HOP_S * rate)
        self._samples = max(samples, self._frame)
        # Periodic, so that a full-scale sine in the middle of a bin has power 1.
        angle = 2 * np.pi * np.arange(self._frame) / self._frame
        self._window = 0.5 - 0.5 * np.cos(angle)
        self._triangles = _triangles(rate, self._frame, mels)

    def __call__(self, samples: NDArray[np.float64]) -> NDArray[np.float32]:
        """The spectrogram, float32 (frames, mels) in [0, 1], of samples float64 (n,)."""
        padded = np.zeros(self._samples)
        kept = samples[: self._samples]
        padded[: len(kept)] = kept
        frames = np.lib.stride_tricks.sliding_window_view(padded, self._frame)[:: self._hop]
        spectrum = np.fft.rfft(frames * self._window, axis=1)
        power = (np.abs(spectrum) / (self._window.sum() / 2)) ** 2
        # Without BLAS, whose sums depend on how many threads it has.
        bands = np.einsum("tf,fm->tm", power, self._triangles)
        decibels = 10 * np.log10(np.maximum(bands, 10 ** (_FLOOR_DB / 10)))
        scaled = np.clip(1 - decibels / _FLOOR_DB, 0, 1)
        rounded: NDArray[np.float32] = (np.round(scaled * _STEPS) / _STEPS).astype(np.float32)
        return rounded


def _triangles(rate: int, frame: int, mels: int) -> NDArray[np.float64]:
    """Weights (bins, mels); each triangle is 1 at its middle."""
    ends = _mel(np.array([_LOWEST_HZ, rate / 2]))
    middles = 700 * (10 ** (np.linspace(ends[0], ends[1], mels + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(frame, 1 / rate)[:, np.newaxis]
    low, middle, high = middles[:-2], middles[1:-1], middles[2:]
    rising, falling = (hertz - low) / (middle - low), (high - hertz) / (high - middle)
    weights = np.maximum(0, np.minimum(rising, falling))
    # Low triangles can be narrower than a bin: then the nearest bin stands for them.
    empty = np.flatnonzero(weights.sum(axis=0) == 0)
    nearest = np.abs(hertz - middle[empty]).argmin(axis=0)
    weights[nearest, empty] = 1
    return weights


def _mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2595 * np.log10(1 + hertz / 700)
