"""Finds what would fail in every round before a device is charged for the first.

A charge is written before the first gradient and is never taken back (`calyx.client.round`). So
everything that can be known without the records is tried before: the model as it is built here, one
step of it on made-up records of their shape, and for record-level privacy that records can be told
apart in it. The answer is kept, because one process plays many clients, and each has many rounds.
"""

from __future__ import annotations

from functools import lru_cache

from calyx.shared.config import Config
from calyx.shared.config.schema import ModelConfig, TaskConfig
from calyx.shared.data import Dataset
from calyx.shared.models.build import build_model
from calyx.shared.models.tryout import try_model
from calyx.shared.models.vector import dimension
from calyx.shared.record_spec import RecordSpec
from calyx.shared.tasks.find import task_of


def rehearse(config: Config, records: Dataset) -> int:
    """Check that this device could train a run's model; no record is looked at.

    Args:
        config: the run.
        records: only what is public about them is used, which the server knows.

    Returns:
        Trainable parameters.

    Raises:
        ModelError: the model cannot be built or trained, or not with this privacy, or not here.
    """
    return _rehearsed(config, records.spec)


def rehearse_task(task: TaskConfig, spec: RecordSpec) -> None:
    """Check what can be known before any run: that the task can be learned from such records.

    Raises:
        ModelError: the labels are of another kind, or the task's own model cannot be built for such
            records.
    """
    found = task_of(task, spec.target)
    if found.model is not None:
        build_model(ModelConfig(name="task"), spec, 0, found)


@lru_cache(maxsize=16)
def _rehearsed(config: Config, spec: RecordSpec) -> int:
    return dimension(try_model(config, spec))
