"""Networks of the reference scenarios that the product lacks: easier to attack than its own.

Both are configured as ``model.name = module:function``, as a user's own model is.
"""

from __future__ import annotations

import math

import torch
from torch import nn


class SmoothNet(nn.Module):
    """Two strided convolutions with tanh and a linear layer: LeNet as in Zhu et al. 2019."""

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.conv1 = nn.Conv2d(channels, 12, kernel_size=5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(12, 12, kernel_size=5, stride=2, padding=2)
        self.fc = nn.Linear(12 * math.ceil(height / 4) * math.ceil(width / 4), classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, classes) of images (n, channels, height, width) in [0, 1]."""
        x = torch.tanh(self.conv1(2 * x - 1))
        logits: torch.Tensor = self.fc(torch.tanh(self.conv2(x)).flatten(1))
        return logits


class FullyConnected(nn.Module):
    """One hidden layer on the bare record: its input can be read off its gradient."""

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(math.prod(input_shape), 64)
        self.fc2 = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, classes) of records (n, ...)."""
        logits: torch.Tensor = self.fc2(nn.functional.relu(self.fc1(x.flatten(1))))
        return logits


def smooth(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """For ``model.name``."""
    return SmoothNet(input_shape, classes)


def fully_connected(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """For ``model.name``."""
    return FullyConnected(input_shape, classes)
