"""One training step with and without per-record clipping, and how long steps take in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import nn

from calyx.shared.models.per_record.gradients import watched

Step = Callable[[], None]
Losses = Callable[[], torch.Tensor]
"""A forward pass over the records of a step: one loss a record, (n,)."""


def plain_step(model: nn.Module, losses: Losses) -> Step:
    """Forward, backward and SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)

    def step() -> None:
        optimizer.zero_grad()
        losses().mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def private_step(model: nn.Module, losses: Losses) -> Step:
    """The same with each record's gradient clipped; without noise, which costs the same in both."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)

    def step() -> None:
        with watched(model) as gradients:
            found = losses()
            for parameter, total in gradients.clipped_sum(found, 1.0).items():
                parameter.grad = (total / len(found)).float()
        optimizer.step()

    return step


def median_ms(steps: Mapping[str, Step], repetitions: int) -> dict[str, float]:
    """Median milliseconds of each, taken in turns; the first of each does not count."""
    times: dict[str, list[float]] = {kind: [] for kind in steps}
    for _ in range(repetitions + 1):
        for kind, step in steps.items():
            started = time.perf_counter()
            step()
            times[kind].append(1000 * (time.perf_counter() - started))
    return {kind: statistics.median(found[1:]) for kind, found in times.items()}
