"""How well scores tell records of one kind from the others: the area under the ROC curve."""

from __future__ import annotations

import math

import torch


def area_under_roc(scores: torch.Tensor, positive: torch.Tensor) -> float:
    """Share of pairs of a positive and another record in which the positive one has more.

    Equal scores count half (Hanley and McNeil 1982). Only the order of scores matters, so they need
    not be probabilities, which are all 0 or 1 in the precision of a model that is sure.

    Args:
        scores: float (n,).
        positive: bool (n,).

    Returns:
        From 0 to 1; NaN if all records are of one kind, or a score is no number.
    """
    positives = int(positive.sum())
    pairs = positives * (len(positive) - positives)
    if not pairs or bool(scores.isnan().any()):
        return math.nan
    _, place, number = torch.unique(scores, return_inverse=True, return_counts=True)
    # Ranks from 1 in ascending order; equal scores have the mean of theirs.
    ranks = number.cumsum(dim=0).double() - (number.double() - 1) / 2
    total = float(ranks[place[positive]].sum())
    return (total - positives * (positives + 1) / 2) / pairs
