"""Every built-in model with every kind of record and target it takes, small.

Widths are of 8, for which processors add up every row alike.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from calyx.shared.config.schema import ModelConfig, TaskConfig
from calyx.shared.models import build_model
from calyx.shared.models.inputs import Inputs, made_up, made_up_labels
from calyx.shared.record_spec import RecordSpec
from calyx.shared.target import Classes, MultiLabel, NextTokens, Reals, Target
from calyx.shared.tasks.find import task_of
from calyx.shared.tasks.task import Task

STEPS, WORDS = 7, 11
_KINDS: dict[type[Target], str] = {
    Classes: "classification",
    MultiLabel: "multilabel",
    Reals: "regression",
    NextTokens: "next_token",
}


def _text(target: Target) -> RecordSpec:
    return RecordSpec.tokens((STEPS,), WORDS, target)


def _config(name: str, **settings: Any) -> ModelConfig:
    return ModelConfig(name=name, hidden=8, **settings)


_NEXT, _VALUE = NextTokens((STEPS,), WORDS), Reals(-2.0, 6.0)
BUILT: dict[str, tuple[ModelConfig, RecordSpec]] = {
    "cnn": (_config("cnn"), RecordSpec.floats((1, 8, 8), Classes(10))),
    "cnn of the smallest": (_config("cnn"), RecordSpec.floats((1, 4, 4), _VALUE)),
    "cnn in colour": (_config("cnn"), RecordSpec.floats((3, 13, 9), Classes(3))),
    "cnn of many channels": (_config("cnn"), RecordSpec.floats((16, 8, 8), MultiLabel(4))),
    "mlp of a table": (_config("mlp", layers=2), RecordSpec.floats((16,), _VALUE)),
    "mlp of images": (_config("mlp"), RecordSpec.floats((2, 4, 5), MultiLabel(4))),
    "mlp of one number": (_config("mlp"), RecordSpec.floats((), Classes(2))),
    "cnn1d": (_config("cnn1d", layers=3), RecordSpec.floats((16, 8), Classes(5))),
    "cnn1d of one step": (_config("cnn1d", layers=2), RecordSpec.floats((1, 3), _VALUE)),
    "lstm": (_config("lstm", layers=2), RecordSpec.floats((8, 5), MultiLabel(4))),
    "lstm both ways": (
        _config("lstm", bidirectional=True),
        RecordSpec.floats((8, 5), Classes(3)),
    ),
    "lstm of text": (_config("lstm", embedding=16), _text(Classes(3))),
    "lstm of text both ways": (_config("lstm", layers=2, bidirectional=True), _text(_VALUE)),
    "lstm of next tokens": (_config("lstm"), _text(_NEXT)),
    "attention": (_config("attention", layers=2), RecordSpec.floats((8, 5), _VALUE)),
    "attention of text": (_config("attention"), _text(Classes(3))),
    "attention of next tokens": (_config("attention", layers=2), _text(_NEXT)),
}
OF_TEXT = [name for name in BUILT if "text" in name or "tokens" in name]


def built(name: str, **settings: Any) -> tuple[nn.Module, RecordSpec, Task]:
    """The model of this name in `BUILT`, with other settings, its records and its task."""
    config, spec = BUILT[name]
    config = config.model_copy(update=settings)
    return (
        build_model(config, spec, seed=4),
        spec,
        task_of(TaskConfig(kind=_KINDS[type(spec.target)]), spec.target),
    )


def records(spec: RecordSpec, n: int) -> tuple[Inputs, torch.Tensor]:
    """Made-up records and labels."""
    generator = torch.Generator().manual_seed(1)
    return made_up(spec, n, generator), made_up_labels(spec.target, n, generator)
