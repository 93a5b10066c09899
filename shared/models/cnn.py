"""A small convolutional network for images, the standard one of the field."""

from __future__ import annotations

import torch
from torch import nn

from calyx.shared.errors import ModelError

_MOST_CHANNELS, _SMALLEST = 16, 4


class Cnn(nn.Module):
    """Two convolutions 3x3 (32 and 64 channels), each pooled 2x2, then 128 units and classes.

    For 28x28 images and ten classes it has 421,642 parameters. Pooling comes before the ReLU:
    both are monotone, so the function is the same and the ReLU has a quarter of the work.

    Args:
        input_shape: (channels, height, width), 1 to 16 channels, height and width at least 4.
        outputs: numbers to give for an image.
        dropout: share of values left out before each of the last two layers.

    Raises:
        ModelError: another input shape.
    """

    def __init__(self, input_shape: tuple[int, ...], outputs: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        if (
            len(input_shape) != 3
            or not 1 <= input_shape[0] <= _MOST_CHANNELS
            or min(input_shape[1:]) < _SMALLEST
        ):
            raise ModelError(
                f"model cnn takes images of shape (channels, height, width), up to "
                f"{_MOST_CHANNELS} channels and at least {_SMALLEST}x{_SMALLEST} pixels; the data "
                f"have shape {tuple(input_shape)}",
                hint="set data.view=image, data.image_size for larger images, or use another "
                "model: mlp for tables, cnn1d, lstm or attention for sequences",
            )
        channels, height, width = input_shape
        self.conv1 = nn.Conv2d(channels, 32, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, padding=1)
        self.fc1 = nn.Linear(64 * (height // 4) * (width // 4), 128)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(128, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 (n, outputs) of images float32 (n, channels, height, width)."""
        n, channels, height, width = x.shape
        # Channels-last memory: the convolutions then choose the layout in which pooling and they
        # themselves take a third less time. With one channel it is the same memory, and
        # `contiguous(memory_format=...)` would see nothing to do.
        x = (
            x.reshape(n, height, width, 1).movedim(3, 1)
            if channels == 1
            else x.contiguous(memory_format=torch.channels_last)
        )
        # From [0, 1] to [-1, 1], by constants and not by the data's mean, which would be a release
        # of its own. Centred inputs gain some four points where gradients are clipped and noised.
        x = 2 * x - 1
        x = nn.functional.relu(nn.functional.max_pool2d(self.conv1(x), 2))
        x = nn.functional.relu(nn.functional.max_pool2d(self.conv2(x), 2))
        x = nn.functional.relu(self.fc1(self.dropout(x.flatten(1))))
        answers: torch.Tensor = self.fc2(self.dropout(x))
        return answers
