"""The token that follows each step of a text: cross-entropy, judged by accuracy and perplexity."""

from __future__ import annotations

import torch
from torch import nn

from calyx.shared.target import NextTokens
from calyx.shared.tasks.metric import Metric
from calyx.shared.tasks.task import Task


def next_token(target: NextTokens) -> Task:
    """The task of predicting what follows, at each step that has a follower."""
    return Task(
        _losses,
        (
            Metric("accuracy", _accuracy, is_share=True),
            Metric("perplexity", _perplexity, higher_is_better=False),
        ),
        predictions=_judged,
    )


def _each(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats of each step, (n, steps)."""
    flat = nn.functional.cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="none")
    return flat.view(labels.shape)


def _losses(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the real steps of one record; 0 for a record without any."""
    real = labels != 0
    return (_each(outputs, labels) * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)


def _judged(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """For each step whether the likeliest token is right, and the cross-entropy: (n, steps, 2).

    All outputs of all test records at once would be as many numbers as there are tokens, times the
    vocabulary.
    """
    right = outputs.argmax(dim=2) == labels
    return torch.stack([right.to(outputs.dtype), _each(outputs, labels)], dim=2)


def _accuracy(judged: torch.Tensor, labels: torch.Tensor) -> float:
    return float(judged[..., 0][labels != 0].mean())


def _perplexity(judged: torch.Tensor, labels: torch.Tensor) -> float:
    return float(judged[..., 1][labels != 0].double().mean().exp())
