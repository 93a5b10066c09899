"""Loss and metrics of a model on given records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from calyx.shared.models.inputs import call, each, tensors
from calyx.shared.tasks.task import Task

# Fixed, so that the order of float additions, and with it the figures, never depends on memory.
_BATCH = 500


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on `records` records.

    Attributes:
        loss: mean over the records, in the unit of the task's loss.
        metrics: by name, the headline first; None where these records do not define one.
        records: how many.
    """

    loss: float
    metrics: Mapping[str, float | None]
    records: int


def evaluate_model(
    model: nn.Module,
    features: NDArray[Any] | Mapping[str, NDArray[Any]],
    labels: NDArray[Any],
    task: Task,
    device: str = "cpu",
) -> Evaluation:
    """Evaluate `model` by `task` on features (n, ...), or one such array an input, and labels.

    Raises:
        ModelError: a metric of the user's own fails.
    """
    model = model.to(device).eval()
    inputs, wanted = tensors(features), torch.from_numpy(labels)
    loss, predictions = 0.0, []
    with torch.no_grad():
        for start in range(0, len(labels), _BATCH):
            x = each(inputs, lambda x: x[start : start + _BATCH].to(device))  # noqa: B023
            y = wanted[start : start + _BATCH].to(device)
            outputs = call(model, x)
            loss += float(task.record_losses(outputs, y).sum())
            predictions.append(task.predictions(outputs, y).cpu())
    predicted = torch.cat(predictions)
    metrics = {metric.name: metric.value(predicted, wanted) for metric in task.measured}
    return Evaluation(loss / len(labels), metrics, len(labels))
