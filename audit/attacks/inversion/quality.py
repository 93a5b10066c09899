"""How good is a reconstruction? PSNR, against records paired with it, and beside a baseline."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Floats = NDArray[np.float64]
Pictures = NDArray[np.floating[Any]]

# A mean squared error below this counts as it, so that a perfect copy has a PSNR: 150 dB.
_LEAST_ERROR = 1e-15
# Above the baseline by this, in dB, a picture counts as recovered.
MARGIN_DB = 1.0


def psnr(pictures: Pictures, truth: Pictures) -> Floats:
    """Peak signal-to-noise ratio in dB, float64 (n,), of pictures (n, ...) with values in [0, 1].

    Values beyond are cut off first, as anybody would who knows what a picture is.
    """
    difference = np.clip(pictures.astype(np.float64), 0, 1) - truth.astype(np.float64)
    error = np.square(difference).reshape(len(difference), -1).mean(axis=1)
    return np.asarray(-10 * np.log10(np.maximum(error, _LEAST_ERROR)))


def match(pictures: Pictures, records: Pictures) -> NDArray[np.int64]:
    """Pair pictures with records, each with another one, so that the mean PSNR is the largest.

    An order of records is no part of a gradient, so an attacker is not asked for one. The pairing
    is optimal (Hungarian method).

    Args:
        pictures: (k, ...).
        records: (n, ...), n at least k, of the same shape otherwise.

    Returns:
        int64 (k,): the record of each picture.
    """
    x = np.clip(pictures.astype(np.float64), 0, 1).reshape(len(pictures), -1)
    y = records.reshape(len(records), -1)
    squares = np.einsum("ij,ij->i", y, y, dtype=np.float64)
    error = np.square(x).sum(axis=1)[:, None] + squares[None] - 2 * (x.astype(y.dtype) @ y.T)
    rows, columns = linear_sum_assignment(np.log(np.maximum(error / x.shape[1], _LEAST_ERROR)))
    assert (rows == np.arange(len(x))).all()
    return np.asarray(columns, dtype=np.int64)
