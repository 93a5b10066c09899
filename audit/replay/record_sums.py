"""Sums of clipped gradients, computed a second way.

The auditor subtracts from a released sum what the records contributed. If the trainer's own code
computed that, a fault in it would cancel out. Here each record goes through the model alone, and
its gradient is clipped by its norm: this shares nothing with the hooks and norms of
`calyx.shared.models.per_record.gradients`, nor with Opacus.

A gradient jumps where an input of ReLU passes 0, or where two inputs of max-pooling change their
order. Within single precision of such a point rounding alone decides, and two correct sums over a
hundred records may differ: this was seen once in 600 sums, by .03 of a clip norm.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from calyx.shared.data import Dataset
from calyx.shared.data.dataset import rows
from calyx.shared.models.inputs import call, each, tensors
from calyx.shared.tasks.task import Task

# As far as single precision moves an input, by moving the weights.
_JITTER = 2e-7
_TRIES = 16
# In clip norms: two correct sums that met no such point are a tenth of this apart.
_NEAR = 1e-3


def clipped_sum_by_record(
    model: nn.Module, data: Dataset, task: Task, clip_norm: float
) -> NDArray[np.float64]:
    """Sum over all records of min(1, C/||g||) g; float64 (trainable parameters,), in their order.

    Args:
        model: at the weights in question; without dropout, or in evaluation mode.
        data: the records; a millisecond or more for each.
        task: the loss.
        clip_norm: C.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    total = np.zeros(sum(parameter.numel() for parameter in parameters))
    for number in range(len(data)):
        alone = np.array([number])
        labels = torch.from_numpy(data.labels[alone]).repeat_interleave(task.copies, dim=0)
        inputs = each(tensors(rows(data.features, alone)), task.views)
        loss = task.losses(call(model, inputs), labels).mean()
        parts = torch.autograd.grad(loss, parameters, materialize_grads=True)
        gradient = torch.cat([part.flatten() for part in parts]).double().numpy()
        norm = float(np.linalg.norm(gradient))
        if np.isfinite(norm):
            total += gradient * (clip_norm / norm if norm > clip_norm else 1.0)
    return total


def distance_from_sum_by_record(
    model: nn.Module, data: Dataset, task: Task, clip_norm: float, total: NDArray[np.float64]
) -> float:
    """How far a sum is from what `clipped_sum_by_record` gives, in clip norms.

    Where they differ, the weights are moved several times, as little as rounding moves them, and
    the smallest distance counts. Where rounding decides a gradient, one of these falls as in the
    other sum. A clipping fault is far larger than any effect of these moves.

    Args:
        model, data, task, clip_norm: as for `clipped_sum_by_record`; the model is left as it was.
        total: the other sum; (trainable parameters,).
    """
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    smallest = float("inf")
    try:
        for _ in range(_TRIES):
            again = clipped_sum_by_record(model, data, task, clip_norm)
            smallest = min(smallest, float(np.linalg.norm(total - again)) / clip_norm)
            if smallest <= _NEAR:
                break
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(saved[name] * (1 + _JITTER * noise))
    finally:
        model.load_state_dict(saved)
    return smallest
