"""A model of your own: Calyx imports it by ``model.name = "model:build"``."""

from torch import nn


def build(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A small convolutional network with group norm.

    Batch norm would be refused: it mixes records, so no record's influence could be bounded.

    Args:
        input_shape: of one record, (channels, height, width).
        classes: number of classes; the model returns as many logits for each record.
    """
    channels, height, width = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, kernel_size=3, padding=1),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * (height // 2) * (width // 2), classes),
    )
