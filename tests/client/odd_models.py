"""Models that cannot be trained, each for another reason."""

from __future__ import annotations

import math

import torch
from torch import nn


class Mixes(nn.Module):
    """Batch norm: fine without privacy, impossible for single records."""

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        size = math.prod(input_shape)
        self.norm, self.out = nn.BatchNorm1d(size), nn.Linear(size, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out(self.norm(x.flatten(1)))
        return out


class WrongShape(nn.Module):
    """Builds, and fails with the first batch."""

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.out = nn.Linear(math.prod(input_shape) + 1, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out(x.flatten(1))
        return out


class NoGradient(WrongShape):
    """Runs, and cannot be trained."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            out: torch.Tensor = self.out(nn.functional.pad(x.flatten(1), (0, 1)))
        return out
