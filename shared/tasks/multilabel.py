"""Several labels a record, each yes or no: binary cross-entropy, judged by F1."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from calyx.shared.target import MultiLabel
from calyx.shared.tasks.metric import Metric
from calyx.shared.tasks.roc import area_under_roc
from calyx.shared.tasks.task import Task


def multilabel(target: MultiLabel) -> Task:
    """The task of telling which of `target`'s labels a record has."""
    number = target.number
    return Task(
        _losses,
        (
            Metric("f1", _f1, "F1", is_share=True),
            Metric("accuracy", _accuracy, is_share=True),
            Metric("auc", partial(_auc, number), "AUC"),
        ),
    )


def _losses(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the labels of one record."""
    each = nn.functional.binary_cross_entropy_with_logits(outputs, labels, reduction="none")
    return each.mean(dim=1)


def _f1(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Harmonic mean of precision and recall over all labels of all records."""
    from torchmetrics.functional.classification import binary_f1_score

    return float(binary_f1_score(_guessed(outputs), labels.flatten().long()))


def _accuracy(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of right answers, over all labels of all records."""
    from torchmetrics.functional.classification import binary_accuracy

    return float(binary_accuracy(_guessed(outputs), labels.flatten().long()))


def _guessed(outputs: torch.Tensor) -> torch.Tensor:
    """The likelier answer, 0 or 1, to each label of each record, (n * number,)."""
    return (outputs > 0).flatten().long()


def _auc(number: int, outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Area under the ROC curve, mean over the labels; undefined unless each occurs both ways."""
    each = [area_under_roc(outputs[:, label], labels[:, label] == 1) for label in range(number)]
    return sum(each) / number
