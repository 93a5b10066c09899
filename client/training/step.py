"""What one step of local training uses and yields, with and without privacy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from calyx.shared.data import Dataset


@dataclass(frozen=True)
class TrainingLog:
    """What happened in one round of local training. In private runs it stays on the device.

    Attributes:
        steps: optimiser steps taken.
        batch_sizes: records in each step's batch.
        last_loss: mean cross-entropy of the last batch that was not empty, before its step;
            NaN if there was none.
    """

    steps: int
    batch_sizes: tuple[int, ...]
    last_loss: float


def add_proximal_gradient(model: nn.Module, start: list[torch.Tensor], proximal_mu: float) -> None:
    """Add mu (w - w_global), the gradient of FedProx's term, to the parameters' gradients.

    It depends on weights only, so in private training it comes after the noise: it needs no
    clipping and spends no budget.
    """
    if proximal_mu == 0:
        return
    for parameter, global_weight in zip(model.parameters(), start, strict=True):
        if parameter.grad is not None:
            parameter.grad.add_(parameter.detach() - global_weight, alpha=proximal_mu)


def batch_tensors(
    data: Dataset, indices: NDArray[np.int64], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features float32 (n, *input_shape) and labels int64 (n,) of these records."""
    features = torch.from_numpy(data.features[indices])
    labels = torch.from_numpy(data.labels[indices])
    return features.to(device), labels.to(device)
