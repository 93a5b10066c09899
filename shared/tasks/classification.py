"""One class a record: cross-entropy, in nats, judged by accuracy."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from calyx.shared.target import Classes
from calyx.shared.tasks.metric import Metric
from calyx.shared.tasks.roc import area_under_roc
from calyx.shared.tasks.task import Task

# Sorting all records once a class takes longer than it tells from here on.
_MOST_FOR_AUC = 100


def classification(target: Classes, class_weights: tuple[float, ...] = ()) -> Task:
    """The task of telling `target`'s classes apart.

    Args:
        target: the classes.
        class_weights: public weight of each class in the loss; empty: 1 each.
    """
    weight = torch.tensor(class_weights) if class_weights else None

    def losses(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(
            outputs,
            labels,
            weight=None if weight is None else weight.to(outputs),
            reduction="none",
        )

    number = target.number
    metrics = [
        Metric("accuracy", partial(_accuracy, number), is_share=True),
        Metric("balanced_accuracy", partial(_balanced_accuracy, number), is_share=True),
        Metric("f1", partial(_f1, number), "F1", is_share=True),
    ]
    if number <= _MOST_FOR_AUC:
        metrics.append(Metric("auc", partial(_auc, number), "AUC"))
    return Task(losses, tuple(metrics))


def _accuracy(number: int, outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of right classes."""
    from torchmetrics.functional.classification import multiclass_accuracy

    return float(multiclass_accuracy(outputs, labels, number, average="micro"))


def _balanced_accuracy(number: int, outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Mean recall of the classes that the records have."""
    right = outputs.argmax(dim=1) == labels
    records = torch.bincount(labels, minlength=number)
    found = torch.bincount(labels[right], minlength=number)
    there = records > 0
    return float((found[there].double() / records[there]).mean())


def _f1(number: int, outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Harmonic mean of precision and recall, mean over all classes."""
    from torchmetrics.functional.classification import multiclass_f1_score

    return float(multiclass_f1_score(outputs, labels, number, average="macro"))


def _auc(number: int, outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Area under the ROC curve: each class against all others, mean over all classes.

    Undefined unless the test records have them all.
    """
    wide = outputs.double()
    if number == 2:
        return area_under_roc(wide[:, 1] - wide[:, 0], labels == 1)
    shares = wide.softmax(dim=1)
    each = [area_under_roc(shares[:, c], labels == c) for c in range(number)]
    return sum(each) / number
