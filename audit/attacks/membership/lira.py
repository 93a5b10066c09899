"""The likelihood ratio attack (Carlini et al. 2022), as functions of arrays.

Every record has its own distribution of confidences with it and without it. The attacker fits both
as Gaussians to models that they trained, and asks which one the target's confidence came from.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

# With fewer shadows a record's own variance is too rough; all records then share one.
OWN_VARIANCE_FROM = 64
_LEAST_SPREAD = 1e-9


def online(confidences: Floats, inside: Mask, target: Floats) -> Floats:
    """log-likelihood ratio of "with the record" against "without".

    Args:
        confidences: (shadows, records), of the attacker's models.
        inside: (shadows, records), which model was trained with which record.
        target: (records,), of the model under attack.

    Returns:
        (records,), higher for members.
    """
    present = norm.logpdf(target, *_fitted(confidences, inside))
    absent = norm.logpdf(target, *_fitted(confidences, ~inside))
    return np.asarray(present - absent)


def offline(confidences: Floats, inside: Mask, target: Floats) -> Floats:
    """How far the confidence lies above the models without the record, in standard deviations.

    For an attacker who cannot train models with the records; arguments as for `online`.
    """
    mean, spread = _fitted(confidences, ~inside)
    return np.asarray((target - mean) / spread)


def _fitted(confidences: Floats, chosen: Mask) -> tuple[Floats, Floats]:
    """Mean of each record over the chosen models, and the spread; (records,) each.

    A record without a chosen model, about which the attacker knows nothing, takes all of them.
    """
    chosen = chosen | ~chosen.any(axis=0)
    counts = chosen.sum(axis=0)
    mean = np.where(chosen, confidences, 0.0).sum(axis=0) / counts
    squares = np.where(chosen, (confidences - mean) ** 2, 0.0).sum(axis=0)
    if len(confidences) < OWN_VARIANCE_FROM:
        shared = squares.sum() / max(int((counts - 1).sum()), 1)
        squares = np.full(len(mean), shared)
    else:
        squares = squares / np.maximum(counts - 1, 1)
    return mean, np.maximum(np.sqrt(squares), _LEAST_SPREAD)
