"""A run's model and device tried before anything is begun, charged or sent."""

from __future__ import annotations

import torch
from torch import nn

from calyx.shared.config import Config
from calyx.shared.config.schema import TrainingConfig
from calyx.shared.errors import CalyxError, ModelError
from calyx.shared.models.build import build_model
from calyx.shared.models.inputs import call, each, made_up
from calyx.shared.models.optimizer import make_optimizer
from calyx.shared.models.per_record.private import check_private, try_private, with_made_up_weights
from calyx.shared.models.seeding import torch_seeded
from calyx.shared.record_spec import RecordSpec

# One record by itself is what batch norm cannot do, and no batch of a device with more has to be.
_RECORDS = 2


def torch_device(name: str) -> torch.device:
    """The device of ``training.device``.

    Raises:
        ModelError: it is not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "training.device = cuda: PyTorch finds no CUDA device here",
            hint="set training.device=cpu, or install a CUDA build of PyTorch and its driver",
        )
    return torch.device(name)


def try_model(config: Config, spec: RecordSpec, classes: int) -> nn.Module:
    """Build the model of a run, and see that its clients could train it as it promises.

    What fails here would fail on every client in every round, after each had been charged.

    Args:
        config: the run.
        spec: what is public about a record's inputs.
        classes: number of classes.

    Returns:
        The model, with its first weights.

    Raises:
        ModelError: the device is not there, the model cannot be built or trained, or records
            cannot be protected in it one by one.
    """
    torch_device(config.training.device)
    model = build_model(config.model, spec, classes, config.seed)
    if config.privacy.is_record_level:
        check_private(model)
        try_private(model, spec)
    _try_step(model, config.training, spec)
    return model


def _try_step(model: nn.Module, training: TrainingConfig, spec: RecordSpec) -> None:
    """One step, as local training makes it, on a copy with weights of our own."""
    device = torch_device(training.device)
    generator = torch.Generator().manual_seed(0)
    records = each(made_up(spec, _RECORDS, generator), lambda x: x.to(device))
    labels = torch.zeros(_RECORDS, dtype=torch.int64, device=device)
    try:
        tried = with_made_up_weights(model, generator).to(device)
        optimizer = make_optimizer(training, tried.parameters())
        with torch_seeded(0, device):
            loss = nn.functional.cross_entropy(call(tried, records), labels)
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    except CalyxError:
        raise
    except Exception as error:
        # The user's own layers may fail with anything.
        raise ModelError(
            f"the model cannot be trained: on {_RECORDS} made-up records it failed with "
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
        ) from error
