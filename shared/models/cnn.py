"""A small convolutional network for single-channel images, the standard one of the field."""

from __future__ import annotations

import torch
from torch import nn

from calyx.shared.errors import ModelError


class Cnn(nn.Module):
    """Two convolutions 3x3 (32 and 64 channels), each pooled 2x2, then 128 units and classes.

    For 28x28 images and ten classes it has 421,642 parameters. Pooling comes before the ReLU:
    both are monotone, so the function is the same and the ReLU has a quarter of the work.

    Args:
        input_shape: (1, height, width), height and width at least 4.
        classes: number of classes.

    Raises:
        ModelError: another input shape.
    """

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        if len(input_shape) != 3 or input_shape[0] != 1 or min(input_shape[1:]) < 4:
            raise ModelError(
                "model cnn takes images of shape (1, height, width) of at least 4x4 pixels; the "
                f"data have shape {tuple(input_shape)}",
                hint="set data.view=image or use another model",
            )
        _, height, width = input_shape
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, padding=1)
        self.fc1 = nn.Linear(64 * (height // 4) * (width // 4), 128)
        self.fc2 = nn.Linear(128, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, float32 (n, classes), of images float32 (n, 1, height, width)."""
        n, _, height, width = x.shape
        # The same memory, declared channels-last: the convolutions then choose the layout in
        # which pooling and they themselves take a third less time. With one channel,
        # `contiguous(memory_format=...)` would see nothing to do.
        x = x.reshape(n, height, width, 1).movedim(3, 1)
        # From [0, 1] to [-1, 1], by constants and not by the data's mean, which would be a release
        # of its own. Centred inputs gain some four points where gradients are clipped and noised.
        x = 2 * x - 1
        x = nn.functional.relu(nn.functional.max_pool2d(self.conv1(x), 2))
        x = nn.functional.relu(nn.functional.max_pool2d(self.conv2(x), 2))
        logits: torch.Tensor = self.fc2(nn.functional.relu(self.fc1(x.flatten(1))))
        return logits
