"""What is learned, in one object.

The kinds that are built in differ in loss and metrics only, and take their records from
``data.source`` and their model from ``model.name``. A task of your own may bring all four::

    def records(place):                       # what --data-dir names
        table = np.loadtxt(place, delimiter=",")
        return table[:, 1:], table[:, 0]

    def model(spec):
        return nn.Linear(*spec.float_shape, 1)

    def losses(outputs, labels):              # one loss a record: no mean over the batch
        return (outputs[:, 0] - labels).abs()

    task = Task(losses, {"mae": mean_absolute_error}, records, model)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from calyx.shared.errors import ModelError
from calyx.shared.record_spec import Input
from calyx.shared.target import Target
from calyx.shared.tasks.metric import Metric
from calyx.shared.tasks.views import viewed

Losses = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From outputs (n, ...) and labels (n, ...) to one loss a record, (n,)."""


def _outputs(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return outputs


@dataclass(frozen=True, eq=False)
class Task:
    """Records, model, loss and metrics of what is learned.

    Attributes:
        losses: one loss a record. Per-record privacy holds only if a record's loss depends on that
            record; it is tried out before a run begins.
        metrics: of the model on test records, the headline first. A mapping's values are called
            with predictions and labels of all test records, as metrics of torchmetrics are.
        records: from what ``--data-dir`` names to records: a map-style `torch.utils.data.Dataset`
            of (features, label), or features and labels as arrays, or ``(train, test)`` of either.
            None: those of ``data.source``.
        model: from the `RecordSpec` of the records to a module. None: that of ``model.name``.
        predictions: from outputs and labels of a batch to what the metrics take, (n, ...); the
            outputs themselves by default.
        target: what a label is, as `Classes(3)` or `Reals(0, 100)`; None: numbers of the shape and
            dtype they have. The loss is tried on labels that it allows; without one, on 0 and 1,
            or between them, so state it where labels go further.
        augment, copies: views of an image that its loss is the mean of, see
            `calyx.shared.tasks.views`; a configuration's ``task.augment`` and ``task.copies``.
        inputs: what is public about the features, as ``{"x": Tokens((40,), 5000)}``; None: float32
            of the shape they have.

    Raises:
        ModelError: no metric, or two of one name.
    """

    losses: Losses
    metrics: Mapping[str, Any] | tuple[Metric, ...]
    records: Callable[[str], Any] | None = None
    model: Callable[..., nn.Module] | None = None
    predictions: Losses = _outputs
    target: Target | None = None
    inputs: Mapping[str, Input] | None = None
    augment: str = ""
    copies: int = 1
    measured: tuple[Metric, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        given = self.metrics
        metrics = (
            tuple(Metric.of(name, measure) for name, measure in given.items())
            if isinstance(given, Mapping)
            else tuple(given)
        )
        names = [metric.name for metric in metrics]
        if not metrics or len({*names, "loss"}) != len(names) + 1:
            raise ModelError(
                f"a task has the metrics {', '.join(names) or 'none'}",
                hint="give at least one, each with a name of its own other than loss; the first is "
                "the headline",
            )
        object.__setattr__(self, "measured", metrics)

    def views(self, inputs: torch.Tensor) -> torch.Tensor:
        """`copies` views of each record, next to each other: (n * copies, ...).

        Raises:
            ModelError: there are more than one, and records are no images.
        """
        return viewed(inputs, self.augment, self.copies) if self.copies > 1 else inputs

    def record_losses(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """One loss a record, float32 (n,).

        Raises:
            ModelError: the task's own function returns something else.
        """
        losses = self.losses(outputs, labels)
        is_tensor = isinstance(losses, torch.Tensor)
        if not is_tensor or losses.shape != labels.shape[:1] or not losses.is_floating_point():
            found = tuple(losses.shape) if is_tensor else type(losses).__name__
            raise ModelError(
                f"the task's loss gave {found} for {len(labels)} records",
                hint="return one loss a record, of shape (records,): no mean over the batch",
            )
        return losses

    @property
    def headline(self) -> Metric:
        """The metric by which a model is judged first."""
        return self.measured[0]
