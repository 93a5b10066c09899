"""The local optimiser that a config names."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from calyx.shared.config.schema import TrainingConfig


def make_optimizer(
    config: TrainingConfig, parameters: Iterable[torch.nn.Parameter]
) -> torch.optim.Optimizer:
    """Build SGD (with momentum), Adam or RMSprop (with momentum) over `parameters`.

    Adam has momentum built in and ignores ``training.momentum``.
    """
    trainable = [p for p in parameters if p.requires_grad]
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "adam":
        return torch.optim.Adam(trainable, lr=rate, weight_decay=decay)
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(trainable, lr=rate, momentum=config.momentum, weight_decay=decay)
    return torch.optim.SGD(trainable, lr=rate, momentum=config.momentum, weight_decay=decay)
