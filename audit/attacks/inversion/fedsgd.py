"""Inversion of one step: search records whose gradient is the one that was observed.

For smooth networks the relative squared distance ||g(x) - g||^2 / ||g||^2 (Zhu et al. 2019), for
others the angle 1 - cos(g(x), g) (Geiping et al. 2020), which also needs no scale.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from calyx.audit.attacks.inversion.search import Distance, by_adam, by_lbfgs
from calyx.audit.progress import Tick


@dataclass(frozen=True)
class Observed:
    """What an attacker has.

    Attributes:
        model: with the weights at which the gradient was taken.
        gradient: the attacker's estimate of the mean gradient over the records, by parameter.
        labels: of the records, int64 (records,); known or guessed.
        input_shape: of one record.
        low, high: between which a record's values lie.
    """

    model: nn.Module
    gradient: tuple[torch.Tensor, ...]
    labels: torch.Tensor
    input_shape: tuple[int, ...]
    low: float = 0.0
    high: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all records together."""
        return (len(self.labels), *self.input_shape)


def invert_smooth(observed: Observed, seed: int, tick: Tick) -> torch.Tensor:
    """Records of a smooth network, float64 (records, *input_shape)."""
    model = copy.deepcopy(observed.model).double()
    target = [g.double() for g in observed.gradient]
    scale = _squared(target).clamp_min(1e-300)

    def distance(x: torch.Tensor) -> torch.Tensor:
        found = gradient_of(model, x, observed.labels)
        return _squared([a - b for a, b in zip(found, target, strict=True)]) / scale

    return by_lbfgs(distance, observed.shape, seed, tick)


def invert_piecewise(observed: Observed, seed: int, tick: Tick) -> torch.Tensor:
    """Records of a network with ReLU or max-pooling, float32 (records, *input_shape)."""
    distance = _angle(observed)
    return by_adam(distance, observed.shape, seed, tick, low=observed.low, high=observed.high)


def gradient_of(
    model: nn.Module, records: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Gradient of the mean cross-entropy in each parameter, itself differentiable."""
    # The fused kernels of attention have no second derivative.
    with sdpa_kernel(SDPBackend.MATH):
        loss = nn.functional.cross_entropy(model(records), labels)
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.autograd.grad(loss, parameters, create_graph=True)


def _angle(observed: Observed) -> Distance:
    target = [g.float() for g in observed.gradient]
    length = _squared(target).sqrt().clamp_min(1e-30)

    def distance(x: torch.Tensor) -> torch.Tensor:
        found = gradient_of(observed.model, x, observed.labels)
        product = torch.stack([(a * b).sum() for a, b in zip(found, target, strict=True)]).sum()
        return 1 - product / (length * _squared(found).sqrt().clamp_min(1e-30))

    return distance


def _squared(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([part.square().sum() for part in parts]).sum()
