"""What would fail in every round, found out before a device is charged for the first.

A charge is written before the first gradient and is never taken back (`client.round`). So whatever
can be known without the records is tried before: the model as it is built here, one step of it on
made-up records of their shape, and for record-level privacy that records can be told apart in it.
The answer is kept, because one process plays many clients, and each has many rounds.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn

from shared.config import Config
from shared.config.schema import ModelConfig, TrainingConfig
from shared.data import Dataset
from shared.errors import CalyxError, ModelError
from shared.models import build_model
from shared.models.optimizer import make_optimizer
from shared.models.private import check_private, try_private, with_made_up_weights
from shared.models.seeding import torch_seeded
from shared.models.tryout import torch_device
from shared.models.vector import dimension
from shared.privacy.plan import PrivacyPlan

# One record by itself is what batch norm cannot do, and no batch of a device with more has to be.
_RECORDS = 2


def rehearse(config: Config, plan: PrivacyPlan, records: Dataset) -> int:
    """See that this device could train a run's model; no record is looked at.

    Args:
        config: the run.
        plan: this device's.
        records: of which the shape and the classes are taken, which the server knows.

    Returns:
        Trainable parameters.

    Raises:
        ModelError: the model cannot be built or trained, not with this privacy, or not here.
    """
    return _rehearsed(
        config.model,
        config.training,
        records.input_shape,
        records.classes,
        config.seed,
        plan.is_private and plan.unit == "record",
    )


@lru_cache(maxsize=16)
def _rehearsed(
    model: ModelConfig,
    training: TrainingConfig,
    input_shape: tuple[int, ...],
    classes: int,
    seed: int,
    by_record: bool,
) -> int:
    built = build_model(model, input_shape, classes, seed)
    if by_record:
        check_private(built)
        try_private(built, input_shape)
    _try_step(built, training, input_shape)
    return dimension(built)


def _try_step(model: nn.Module, training: TrainingConfig, input_shape: tuple[int, ...]) -> None:
    """One step, as `client.training` makes it, on a copy with weights of our own."""
    device = torch_device(training.device)
    generator = torch.Generator().manual_seed(0)
    features = torch.rand((_RECORDS, *input_shape), generator=generator).to(device)
    labels = torch.zeros(_RECORDS, dtype=torch.int64, device=device)
    try:
        tried = with_made_up_weights(model, generator).to(device)
        optimizer = make_optimizer(training, tried.parameters())
        with torch_seeded(0, device):
            loss = nn.functional.cross_entropy(tried(features), labels)
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    except CalyxError:
        raise
    except Exception as error:
        # The user's own layers may fail with anything.
        raise ModelError(
            f"the model cannot be trained: on {_RECORDS} made-up records it failed with "
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        ) from error
