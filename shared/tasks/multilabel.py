"""Several labels a record, each yes or no: binary cross-entropy, judged by F1."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from calyx.shared.target import MultiLabel
from calyx.shared.tasks.metric import Metric
from calyx.shared.tasks.task import Task


def multilabel(target: MultiLabel) -> Task:
    """The task of telling which of `target`'s labels a record has."""
    number = target.number
    return Task(
        _losses,
        (
            Metric("f1", partial(_f1, number), "F1", is_share=True),
            Metric("accuracy", partial(_accuracy, number), is_share=True),
            Metric("auc", partial(_auc, number), "AUC"),
        ),
    )


def _losses(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the labels of one record."""
    each = nn.functional.binary_cross_entropy_with_logits(outputs, labels, reduction="none")
    return each.mean(dim=1)


def _f1(number: int, outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Harmonic mean of precision and recall over all labels of all records."""
    from torchmetrics.functional.classification import multilabel_f1_score

    return float(multilabel_f1_score(outputs.sigmoid(), labels.long(), number, average="micro"))


def _accuracy(number: int, outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of right answers, over all labels of all records."""
    from torchmetrics.functional.classification import multilabel_accuracy

    return float(multilabel_accuracy(outputs.sigmoid(), labels.long(), number, average="micro"))


def _auc(number: int, outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Area under the ROC curve, mean over the labels; undefined unless each occurs both ways."""
    from torchmetrics.functional.classification import multilabel_auroc

    share = labels.mean(dim=0)
    if bool(((share == 0) | (share == 1)).any()):
        return float("nan")
    return float(multilabel_auroc(outputs.sigmoid(), labels.long(), number))
