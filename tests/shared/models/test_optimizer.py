from __future__ import annotations

import pytest
import torch
from torch import nn

from calyx.shared.config.schema import TrainingConfig
from calyx.shared.models import make_optimizer


def _step(config: TrainingConfig, steps: int) -> float:
    """Where a weight of 1 ends up under a constant gradient of 1."""
    weight = nn.Parameter(torch.ones(()))
    optimizer = make_optimizer(config, [weight])
    for _ in range(steps):
        weight.grad = torch.ones(())
        optimizer.step()
    return float(weight.detach())


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (TrainingConfig(learning_rate=0.1), 1 - 0.1 - 0.1),
        (TrainingConfig(learning_rate=0.1, momentum=0.5), 1 - 0.1 - 0.15),
        (TrainingConfig(learning_rate=0.1, weight_decay=1.0), 0.8 - 0.1 * 1.8),
        (TrainingConfig(learning_rate=0.1, optimizer="adam"), 1 - 0.1 - 0.1),
        # RMSprop divides by the root of the running mean square: 0.01, then 0.0199.
        (
            TrainingConfig(learning_rate=0.1, optimizer="rmsprop"),
            1 - 0.1 / 0.01**0.5 - 0.1 / 0.0199**0.5,
        ),
        (
            TrainingConfig(learning_rate=0.1, optimizer="rmsprop", momentum=0.5),
            1 - 1.5 * 0.1 / 0.01**0.5 - 0.1 / 0.0199**0.5,
        ),
    ],
    ids=["sgd", "momentum", "decay", "adam", "rmsprop", "rmsprop-momentum"],
)
def test_two_steps_end_where_the_named_rule_says(config: TrainingConfig, expected: float) -> None:
    assert _step(config, 2) == pytest.approx(expected, rel=1e-5)


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    optimizer = make_optimizer(TrainingConfig(), model.parameters())
    assert [p is model.weight for p in optimizer.param_groups[0]["params"]] == [True]
