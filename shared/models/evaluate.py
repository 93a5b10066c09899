"""Loss and accuracy of a classifier on given records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

# Fixed, so that the order of float additions, and with it the figures, never depends on memory.
_BATCH = 500


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy in nats and share of right classes, over `records` records."""

    loss: float
    accuracy: float
    records: int


def evaluate_model(
    model: nn.Module,
    features: np.ndarray[Any, np.dtype[np.float32]],
    labels: np.ndarray[Any, np.dtype[np.int64]],
    device: str = "cpu",
) -> Evaluation:
    """Evaluate `model` on features (n, *input_shape) float32 and labels (n,) int64."""
    model = model.to(device).eval()
    loss, right = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(labels), _BATCH):
            x = torch.from_numpy(features[start : start + _BATCH]).to(device)
            y = torch.from_numpy(labels[start : start + _BATCH]).to(device)
            logits = model(x)
            loss += float(nn.functional.cross_entropy(logits, y, reduction="sum"))
            right += int((logits.argmax(dim=1) == y).sum())
    return Evaluation(loss / len(labels), right / len(labels), len(labels))
