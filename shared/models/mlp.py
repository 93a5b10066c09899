"""A multilayer perceptron, for tables and other records whose values have no order."""

from __future__ import annotations

import math

import torch
from torch import nn


class Mlp(nn.Module):
    """Hidden layers with tanh, and a linear layer.

    What tanh gives out is bounded, so clipping cuts off less of a gradient than with ReLU (Papernot
    et al. 2021, "Tempered Sigmoid Activations for Deep Learning with Differential Privacy"). On
    the digits as a table its best was up to a point and a half better, and more step sizes served.

    Args:
        input_shape: of a record; it is flattened.
        outputs: numbers to give for a record.
        hidden: units of a hidden layer.
        layers: hidden layers.
        dropout: share of values left out after each hidden layer.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        outputs: int,
        *,
        hidden: int = 128,
        layers: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = [math.prod(input_shape), *[hidden] * (layers - 1)]
        self.layers = nn.ModuleList(nn.Linear(size, hidden) for size in sizes)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 (n, outputs) of records float32 (n, *input_shape)."""
        x = x.reshape(len(x), -1)
        for layer in self.layers:
            x = self.dropout(torch.tanh(layer(x)))
        answers: torch.Tensor = self.classifier(x)
        return answers
