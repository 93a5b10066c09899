"""Label leakage: the gradient of the output bias reveals which classes are in a batch.

For cross-entropy, dL/db_c is the mean over the records of p_c - [label = c]. It is negative only if
a record has that label (Zhao et al. 2020; Wainakh et al. 2022), and its size shows how many do.
"""

from __future__ import annotations

import torch
from torch import nn


def output_bias(model: nn.Module, classes: int) -> str | None:
    """Name of the output layer's bias, None if the model has none."""
    found = None
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and layer.out_features == classes:
            found = f"{name}.bias" if layer.bias is not None else None
    return found


def present(bias: torch.Tensor) -> torch.Tensor:
    """Which classes are in the batch for certain if there is no noise, bool (classes,)."""
    return bias < 0


def guessed(bias: torch.Tensor, records: int, mean_probability: torch.Tensor) -> torch.Tensor:
    """Labels of a batch, int64 (records,), in ascending order.

    Args:
        bias: gradient of the output bias, mean over the batch, (classes,).
        records: size of the batch.
        mean_probability: what the model predicts on average, (classes,); attackers take it from
            records of their own. n_c = n (p_c - dL/db_c), rounded so that the sum is n.
    """
    counts = (records * (mean_probability.double() - bias.double())).clamp_min(0)
    counts = counts * (records / counts.sum().clamp_min(1e-12))
    whole = counts.floor().long()
    missing = records - int(whole.sum())
    rest = (counts - whole).argsort(descending=True, stable=True)
    whole[rest[:missing]] += 1
    return torch.repeat_interleave(torch.arange(len(whole)), whole)[:records]
