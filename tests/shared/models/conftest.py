from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

Sums = dict[nn.Parameter, torch.Tensor]


@pytest.fixture
def by_hand() -> Callable[[nn.Module, torch.Tensor, torch.Tensor], list[Sums]]:
    """Each record's gradient from autograd, one record at a time."""

    def gradients(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[Sums]:
        parameters = [p for p in model.parameters() if p.requires_grad]
        each = []
        for i in range(len(y)):
            loss = nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
            each.append(
                {
                    p: torch.zeros_like(p) if g is None else g
                    for p, g in zip(parameters, found, strict=True)
                }
            )
        return each

    return gradients


@pytest.fixture
def clipped_by_hand(
    by_hand: Callable[[nn.Module, torch.Tensor, torch.Tensor], list[Sums]],
) -> Callable[[nn.Module, torch.Tensor, torch.Tensor, float], Sums]:
    """Sum of the records' gradients, each clipped over all parameters jointly."""

    def clipped(model: nn.Module, x: torch.Tensor, y: torch.Tensor, clip_norm: float) -> Sums:
        total = {p: torch.zeros_like(p) for p in model.parameters() if p.requires_grad}
        for gradient in by_hand(model, x, y):
            norm = torch.stack([g.double().square().sum() for g in gradient.values()]).sum().sqrt()
            for p, g in gradient.items():
                total[p] += g * min(1.0, clip_norm / float(norm))
        return total

    return clipped
