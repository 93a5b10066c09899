"""A run's model and device tried before anything is begun, charged or sent."""

from __future__ import annotations

import torch
from torch import nn

from shared.config import Config
from shared.errors import ModelError
from shared.models.build import build_model
from shared.models.private import check_private, try_private


def torch_device(name: str) -> torch.device:
    """The device of ``training.device``.

    Raises:
        ModelError: it is not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "training.device = cuda: PyTorch finds no CUDA device here; set training.device=cpu, "
            "or install a CUDA build of PyTorch and its driver"
        )
    return torch.device(name)


def try_model(config: Config, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build the model of a run, and see that its clients could train it as it promises.

    What fails here would fail on every client in every round, after each had been charged.

    Args:
        config: the run.
        input_shape: shape of one record without the batch dimension.
        classes: number of classes.

    Returns:
        The model, with its first weights.

    Raises:
        ModelError: the device is not there, the model cannot be built, or records cannot be
            protected in it one by one.
    """
    torch_device(config.training.device)
    model = build_model(config.model, input_shape, classes, config.seed)
    if config.is_private and config.privacy.unit == "record":
        check_private(model)
        try_private(model, input_shape)
    return model
