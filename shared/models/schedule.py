"""How the step size changes over the rounds of a run; public numbers only."""

from __future__ import annotations

import math

from calyx.shared.config.schema import TrainingConfig


def rate_factor(config: TrainingConfig, number: int) -> float:
    """What the step size of a round is multiplied by.

    The first ``warmup_rounds`` rise in equal steps. From there it stays (``constant``), or falls
    to 0 after the last round along a line or half a cosine (Loshchilov and Hutter 2017).

    Args:
        config: ``schedule``, ``warmup_rounds`` and ``rounds``.
        number: of the round, from 1.
    """
    if number <= config.warmup_rounds:
        return number / (config.warmup_rounds + 1)
    left = config.rounds - config.warmup_rounds
    done = (number - 1 - config.warmup_rounds) / left
    if config.schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    return 1 - done if config.schedule == "linear" else 1.0


def in_round(config: TrainingConfig, number: int) -> TrainingConfig:
    """The local training of round `number`, with its step size."""
    factor = rate_factor(config, number)
    if factor == 1.0:
        return config
    return config.model_copy(update={"learning_rate": config.learning_rate * factor})
