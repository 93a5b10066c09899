"""How good a reconstruction is: PSNR against the records paired with it, beside a baseline."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Floats = NDArray[np.float64]
Pictures = NDArray[np.floating[Any]]

# A smaller mean squared error counts as this, so that a perfect copy has a PSNR: 150 dB.
_LEAST_ERROR = 1e-15
# Above the baseline by this, in dB, a picture counts as recovered.
MARGIN_DB = 1.0


def psnr(pictures: Pictures, truth: Pictures) -> Floats:
    """Peak signal-to-noise ratio in dB, float64 (n,), of pictures (n, ...) with values in [0, 1].

    Values outside are clipped first, as anyone who knows what a picture is would do.
    """
    difference = np.clip(pictures.astype(np.float64), 0, 1) - truth.astype(np.float64)
    error = np.square(difference).reshape(len(difference), -1).mean(axis=1)
    return np.asarray(-10 * np.log10(np.maximum(error, _LEAST_ERROR)))


def match(pictures: Pictures, records: Pictures) -> NDArray[np.int64]:
    """Pair each picture with a different record so that the mean PSNR is largest.

    A gradient holds no order of records, so none is required of an attacker. The pairing is
    optimal (Hungarian method).

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
