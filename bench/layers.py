"""What a private step costs, layer by layer: over a plain step, beside Opacus' own.

``python -m bench.layers [--json] [--layer NAME]`` trains one layer and a classifier on one thread.
A step is forward, backward and SGD; a private one clips each record's gradient too, and adds no
noise, which costs the same in both. Plain, ours and Opacus (per-sample gradients by hooks, its
default) take turns in one run, and ratios are those of their medians.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import warnings
from typing import Any

import torch
from torch import nn

from bench.steps import Losses, Step, median_ms, plain_step, private_step
from calyx.shared.models.attention import SelfAttention
from calyx.shared.models.lora import LoraLinear
from calyx.shared.models.recurrent import RecurrentStack, SequenceGRU, SequenceLSTM
from calyx.shared.models.standardised import StandardisedConv2d

RECORDS, CLASSES, WORDS = 64, 10, 5000


class _First(nn.Module):
    """Of what a layer of Opacus' returns, the states."""

    def __init__(self, layer: nn.Module, *, itself: bool = False) -> None:
        super().__init__()
        self.layer, self.itself = layer, itself

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.layer(*([x] * 3 if self.itself else [x]))[0]
        return states


def _shapes() -> dict[str, tuple[nn.Module, nn.Module | None, torch.Tensor]]:
    """Our layer, Opacus' counterpart where its name is another, and records."""
    from opacus.layers import DPGRU, DPLSTM, DPMultiheadAttention

    steps, image = torch.rand(RECORDS, 40, 64), torch.rand(RECORDS, 16, 16, 16)
    tokens = torch.randint(0, WORDS, (RECORDS, 40))
    tokens[:, 25:] = 0
    two_ways = DPLSTM(64, 64, bidirectional=True, batch_first=True)
    attention = DPMultiheadAttention(64, 4, batch_first=True)
    return {
        "linear": (nn.Linear(64, 64), None, steps),
        "embedding": (nn.Embedding(WORDS, 64), None, tokens),
        "embedding_padded": (nn.Embedding(WORDS, 64, padding_idx=0), None, tokens),
        "conv1d": (nn.Conv1d(40, 64, 3, padding=1), None, steps),
        "conv2d": (nn.Conv2d(16, 32, 3, padding=1), None, image),
        "conv2d_strided": (nn.Conv2d(16, 32, 3, stride=2, dilation=2), None, image),
        "conv2d_grouped": (nn.Conv2d(16, 32, 3, padding=1, groups=4), None, image),
        "conv2d_standardised": (StandardisedConv2d(16, 32, 3, padding=1), None, image),
        "conv3d": (nn.Conv3d(4, 8, 3), None, torch.rand(RECORDS, 4, 8, 8, 8)),
        "layer_norm": (nn.LayerNorm(64), None, steps),
        "group_norm": (nn.GroupNorm(4, 16), None, image),
        "instance_norm": (nn.InstanceNorm2d(16, affine=True), None, image),
        "lstm": (SequenceLSTM(64, 64), _First(DPLSTM(64, 64, batch_first=True)), steps),
        "lstm_bidirectional": (
            RecurrentStack("lstm", 64, 64, bidirectional=True),
            _First(two_ways),
            steps,
        ),
        "gru": (SequenceGRU(64, 64), _First(DPGRU(64, 64, batch_first=True)), steps),
        "attention": (SelfAttention(64, 4), _First(attention, itself=True), steps),
        "lora": (LoraLinear(nn.Linear(64, 64), 8), None, steps),
    }


def _model(layer: nn.Module, x: torch.Tensor) -> nn.Module:
    with torch.no_grad():
        width = layer(x).flatten(1).shape[1]
    return nn.Sequential(copy.deepcopy(layer), nn.Flatten(), nn.Linear(width, CLASSES))


def _losses(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Losses:
    return lambda: nn.functional.cross_entropy(model(x), y, reduction="none")


def _opacus(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Step:
    from opacus.grad_sample import GradSampleModule
    from opacus.optimizers import DPOptimizer

    wrapped: Any = GradSampleModule(model)
    optimizer = DPOptimizer(
        torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6),
        noise_multiplier=0.0,
        max_grad_norm=1.0,
        expected_batch_size=RECORDS,
    )

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(wrapped(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def measure(names: list[str], repetitions: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of a plain step, and ratios to it, by layer."""
    torch.manual_seed(0)
    y = torch.arange(RECORDS) % CLASSES
    figures: dict[str, dict[str, float]] = {}
    shapes = _shapes()
    for name in names or shapes:
        layer, counterpart, x = shapes[name]
        plain, ours = _model(layer, x), _model(layer, x)
        steps = {
            "plain": plain_step(plain, _losses(plain, x, y)),
            "ours": private_step(ours, _losses(ours, x, y)),
            "opacus": _opacus(_model(counterpart or layer, x), x, y),
        }
        medians = median_ms(steps, repetitions)
        figures[name] = {
            "plain_ms": round(medians["plain"], 3),
            "private_over_plain": round(medians["ours"] / medians["plain"], 2),
            "opacus_over_plain": round(medians["opacus"] / medians["plain"], 2),
        }
    return figures


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--layer", action="append", default=[], choices=list(_shapes()))
    parser.add_argument("--repetitions", type=int, default=15, help="steps of each (default 15)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        # Opacus' hooks on a layer whose input needs no gradient.
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        figures = measure(arguments.layer, arguments.repetitions)
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, found in figures.items():
        print(
            f"{name:22} plain {found['plain_ms']:8.3f} ms   "
            f"private {found['private_over_plain']:6.2f}x   "
            f"opacus {found['opacus_over_plain']:6.2f}x",
            file=sys.stdout,
        )


if __name__ == "__main__":
    main()
