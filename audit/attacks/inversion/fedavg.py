"""Inversion of several local steps: search records whose training ends at the observed weights.

The local steps are unrolled with `torch.func.functional_call`, so that the distance of the update
theta_T - theta_0 can be differentiated with respect to the records (Geiping et al. 2020; Dimitrov
et al. 2022). Each step takes all records: the attacker then needs no order of batches.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.func import functional_call

from calyx.audit.attacks.inversion.search import by_lbfgs
from calyx.audit.progress import Tick


def invert_training(
    model: nn.Module,
    update: tuple[torch.Tensor, ...],
    labels: torch.Tensor,
    input_shape: tuple[int, ...],
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    tick: Tick,
) -> torch.Tensor:
    """Records behind an update, float64 (records, *input_shape), in any order.

    Args:
        model: smooth, with the weights theta_0.
        update: theta_T - theta_0 by parameter.
        labels: of the records, int64 (records,).
        steps: T, steps of plain SGD over all records.
        learning_rate: of those steps.
    """
    model = copy.deepcopy(model).double()
    start = {name: p.detach() for name, p in model.named_parameters()}
    target = [part.double() for part in update]
    scale = torch.stack([part.square().sum() for part in target]).sum().clamp_min(1e-300)

    def distance(x: torch.Tensor) -> torch.Tensor:
        weights = {name: w.requires_grad_() for name, w in start.items()}
        for _ in range(steps):
            loss = nn.functional.cross_entropy(functional_call(model, weights, (x,)), labels)
            slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            pairs = zip(weights.items(), slopes, strict=True)
            weights = {name: w - learning_rate * slope for (name, w), slope in pairs}
        moved = [weights[name] - w for name, w in start.items()]
        parts = [(a - b).square().sum() for a, b in zip(moved, target, strict=True)]
        return torch.stack(parts).sum() / scale

    return by_lbfgs(distance, (len(labels), *input_shape), seed, tick)
