"""A real value a record: squared error, judged in the value's own unit."""

from __future__ import annotations

from functools import partial

import torch

from calyx.shared.target import Reals
from calyx.shared.tasks.metric import Metric
from calyx.shared.tasks.task import Task


def regression(target: Reals) -> Task:
    """The task of predicting `target`; models learn it as -1 to 1, metrics are in its own unit."""
    return Task(
        partial(_losses, target),
        (
            Metric("r2", _r2, "R²"),
            Metric("mae", _mae, "MAE", higher_is_better=False),
            Metric("rmse", _rmse, "RMSE", higher_is_better=False),
        ),
        predictions=partial(_values, target),
    )


def _losses(target: Reals, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Squared error of the learned value."""
    return (outputs[:, 0] - (labels - target.centre) / target.half_width).square()


def _values(target: Reals, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return outputs[:, 0] * target.half_width + target.centre


def _r2(values: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of the labels' variance that is explained; undefined for labels that are all equal.

    By hand: torchmetrics takes a sum of squares below 1e-4 for none, whatever the unit.
    """
    if bool((labels == labels[0]).all()):
        return float("nan")
    left = (labels.double() - values.double()).square().sum()
    return float(1 - left / (labels.double() - labels.double().mean()).square().sum())


def _mae(values: torch.Tensor, labels: torch.Tensor) -> float:
    from torchmetrics.functional.regression import mean_absolute_error

    return float(mean_absolute_error(values.double(), labels.double()))


def _rmse(values: torch.Tensor, labels: torch.Tensor) -> float:
    from torchmetrics.functional.regression import mean_squared_error

    return float(mean_squared_error(values.double(), labels.double(), squared=False))
