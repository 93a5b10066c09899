"""A convolutional network over time, for motion sensors, spectrograms and other signals."""

from __future__ import annotations

import torch
from torch import nn

from calyx.shared.models.steps import check_sequence, mean_over_steps

_KERNEL = 5
_MOST_GROUPS, _CHANNELS_A_GROUP = 8, 4


class ConvBlock(nn.Module):
    """Convolution over 5 steps, GroupNorm, ReLU.

    Group norm does what batch norm does elsewhere and mixes no records (De et al. 2022). With
    clipped and noised gradients it is worth some eight points on motion sensors.

    Args:
        features: of a step.
        channels: of a step afterwards.
    """

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(features, channels, _KERNEL, padding=_KERNEL // 2)
        self.norm = nn.GroupNorm(_groups(channels), channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, features, steps) to (n, channels, steps)."""
        return nn.functional.relu(self.norm(self.conv(x)))


class Cnn1d(nn.Module):
    """Convolutional blocks, each after the first at half the steps; mean over time; linear layer.

    Args:
        input_shape: (steps, features).
        outputs: numbers to give for a record.
        hidden: channels of a block.
        layers: blocks.
        dropout: share of values left out before the linear layer.

    Raises:
        ModelError: another input shape.
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
        check_sequence("cnn1d", input_shape, None)
        sizes = [input_shape[1], *[hidden] * (layers - 1)]
        self.blocks = nn.ModuleList(ConvBlock(size, hidden) for size in sizes)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 (n, outputs) of sequences float32 (n, steps, features)."""
        x = x.transpose(1, 2)
        for number, block in enumerate(self.blocks):
            if number:
                x = nn.functional.max_pool1d(x, 2, ceil_mode=True)
            x = block(x)
        pooled = mean_over_steps(x.transpose(1, 2), None)
        answers: torch.Tensor = self.classifier(self.dropout(pooled))
        return answers


def _groups(channels: int) -> int:
    """The most groups, up to eight, of at least four channels each."""
    most = min(_MOST_GROUPS, max(1, channels // _CHANNELS_A_GROUP))
    return next(groups for groups in range(most, 0, -1) if channels % groups == 0)
