"""Robust membership inference (Zarifzadeh, Liu, Shokri 2024), as a function of arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def score(
    confidences: Floats, target: Floats, population: Floats, target_population: Floats
) -> Floats:
    """Share of population records z with p(x|target)/p(x) above p(z|target)/p(z), gamma = 1.

    p(.) without a model is the mean over the attacker's models, half of them trained with x.

    Args:
        confidences: (shadows, records), log p_y - log (1 - p_y) of the attacker's models.
        target: (records,), of the model under attack.
        population: (shadows, population), of records that no model was trained on.
        target_population: (population,).

    Returns:
        (records,), in [0, 1), higher for members. Between two records of the population the
        ratio itself decides, so that a small population causes no ties.
    """
    own = _probability(target) / _probability(confidences).mean(axis=0)
    others = np.sort(
        _probability(target_population) / _probability(population).mean(axis=0),
    )
    above = np.searchsorted(others, own, side="right")
    return np.asarray((above + own / (1 + own)) / (len(others) + 1))


def _probability(confidences: Floats) -> Floats:
    """p_y of log p_y - log (1 - p_y), never quite 0."""
    return np.maximum(1 / (1 + np.exp(-np.clip(confidences, -500, 500))), 1e-12)
