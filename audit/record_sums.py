"""Sums of clipped gradients, computed a second way.

The auditor subtracts from a released sum what the records contributed. Computed by the trainer's
own code, a fault there would cancel out. Here each record goes through the model alone, and its
gradient is clipped by its norm: nothing in common with the hooks and norms of
`shared.models.record_gradients`, nor with Opacus.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from shared.data import Dataset


def clipped_sum_by_record(model: nn.Module, data: Dataset, clip_norm: float) -> NDArray[np.float64]:
    """Sum over all records of min(1, C/||g||) g; float64 (trainable parameters,), in their order.

    Args:
        model: at the weights in question; without dropout, or in evaluation mode.
        data: the records; a millisecond or more for each.
        clip_norm: C.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    total = np.zeros(sum(parameter.numel() for parameter in parameters))
    for number in range(len(data)):
        features = torch.from_numpy(data.features[number : number + 1])
        labels = torch.from_numpy(data.labels[number : number + 1])
        loss = nn.functional.cross_entropy(model(features), labels)
        parts = torch.autograd.grad(loss, parameters)
        gradient = torch.cat([part.flatten() for part in parts]).double().numpy()
        norm = float(np.linalg.norm(gradient))
        if np.isfinite(norm):
            total += gradient * (clip_norm / norm if norm > clip_norm else 1.0)
    return total
