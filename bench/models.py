"""What a private step costs in each built-in model: over a plain step.

``python -m bench.models [--json] [--model NAME]`` trains on one thread, with records and sizes as
the sources give them. Plain and private steps take turns in one run.
"""

from __future__ import annotations

import argparse
import json
import sys

import torch

from bench.steps import median_ms, plain_step, private_step
from calyx.shared.config.schema import ModelConfig, TaskConfig
from calyx.shared.models import build_model
from calyx.shared.models.inputs import call, made_up, made_up_labels
from calyx.shared.record_spec import RecordSpec
from calyx.shared.target import Classes, NextTokens
from calyx.shared.tasks.find import task_of

RECORDS = 64
_SENTENCES = RecordSpec.tokens((48,), 30_001, Classes(2))
_LETTERS = RecordSpec.tokens((80,), 97, NextTokens((80,), 97))
_MOTION = RecordSpec.floats((128, 6), Classes(5))
MODELS: dict[str, tuple[ModelConfig, RecordSpec]] = {
    "cnn": (ModelConfig(name="cnn"), RecordSpec.floats((1, 28, 28), Classes(10))),
    "cnn_colour": (ModelConfig(name="cnn"), RecordSpec.floats((3, 32, 32), Classes(10))),
    "mlp": (ModelConfig(name="mlp", layers=2), RecordSpec.floats((30,), Classes(2))),
    "cnn1d_motion": (ModelConfig(name="cnn1d", hidden=64, layers=3), _MOTION),
    "cnn1d_spectrogram": (
        ModelConfig(name="cnn1d", hidden=64, layers=3),
        RecordSpec.floats((98, 40), Classes(10)),
    ),
    "lstm_motion": (ModelConfig(name="lstm", hidden=64), _MOTION),
    "lstm_text": (ModelConfig(name="lstm", hidden=64), _SENTENCES),
    "lstm_text_both_ways": (ModelConfig(name="lstm", hidden=64, bidirectional=True), _SENTENCES),
    "lstm_next_token": (ModelConfig(name="lstm"), _LETTERS),
    "attention_motion": (ModelConfig(name="attention", hidden=64), _MOTION),
    "attention_text": (ModelConfig(name="attention", hidden=64), _SENTENCES),
    "attention_next_token": (ModelConfig(name="attention"), _LETTERS),
}


def measure(names: list[str], repetitions: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of a plain step, and the ratio of a private one to it, by model."""
    figures: dict[str, dict[str, float]] = {}
    for name in names or MODELS:
        config, spec = MODELS[name]
        kind = "next_token" if isinstance(spec.target, NextTokens) else "classification"
        task = task_of(TaskConfig(kind=kind), spec.target)
        generator = torch.Generator().manual_seed(0)
        x = made_up(spec, RECORDS, generator)
        y = made_up_labels(spec.target, RECORDS, generator)
        model = build_model(config, spec, seed=0)

        def losses() -> torch.Tensor:
            return task.record_losses(call(model, x), y)  # noqa: B023

        steps = {"plain": plain_step(model, losses), "private": private_step(model, losses)}
        medians = median_ms(steps, repetitions)
        figures[name] = {
            "plain_ms": round(medians["plain"], 3),
            "private_over_plain": round(medians["private"] / medians["plain"], 2),
        }
    return figures


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--model", action="append", default=[], choices=list(MODELS))
    parser.add_argument("--repetitions", type=int, default=15, help="steps of each (default 15)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = measure(arguments.model, arguments.repetitions)
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, found in figures.items():
        print(
            f"{name:22} plain {found['plain_ms']:8.3f} ms   "
            f"private {found['private_over_plain']:6.2f}x",
            file=sys.stdout,
        )


if __name__ == "__main__":
    main()
