"""Records as tensors: how a model is called with them, and made-up ones to try it with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from calyx.shared.record_spec import Floats, Length, Mask, RecordSpec, Tokens
from calyx.shared.target import Classes, MultiLabel, NextTokens, Reals, Target

# One tensor (n, *shape), or one for each named input.
Inputs = torch.Tensor | dict[str, torch.Tensor]


def call(model: nn.Module, inputs: Inputs) -> Any:
    """``model(x)`` for one input, ``model(**inputs)`` for several."""
    return model(inputs) if isinstance(inputs, torch.Tensor) else model(**inputs)


def tensors(features: NDArray[Any] | Mapping[str, NDArray[Any]]) -> Inputs:
    """Arrays as tensors that share their memory."""
    if isinstance(features, Mapping):
        return {name: torch.from_numpy(array) for name, array in features.items()}
    return torch.from_numpy(features)


def each(inputs: Inputs, change: Callable[[torch.Tensor], torch.Tensor]) -> Inputs:
    """The same inputs with each tensor changed: moved, reordered, filled up."""
    if isinstance(inputs, torch.Tensor):
        return change(inputs)
    return {name: change(x) for name, x in inputs.items()}


def joined(first: Inputs, second: Inputs) -> Inputs:
    """The records of both, in this order."""
    if isinstance(first, torch.Tensor) or isinstance(second, torch.Tensor):
        assert isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor)
        return torch.cat([first, second])
    return {name: torch.cat([x, second[name]]) for name, x in first.items()}


def made_up(spec: RecordSpec, n: int, generator: torch.Generator) -> Inputs:
    """Records that `spec` allows, drawn from `generator` on the CPU.

    Values are uniform in [0, 1), tokens uniform in the vocabulary. Of inputs that vary in length
    the first record has all steps, the second one, and the others any number between.

    Args:
        spec: what is public about a record.
        n: how many, at least 1.
        generator: on the CPU.
    """
    drawn: dict[str, torch.Tensor] = {}
    lengths: dict[str, torch.Tensor] = {}
    for name, given in spec.inputs:
        if isinstance(given, Length | Mask):
            continue
        size = (n, *given.shape)
        varies = spec.varies(name)
        if isinstance(given, Floats):
            drawn[name] = torch.rand(size, generator=generator)
        elif isinstance(given, Tokens):
            drawn[name] = torch.randint(int(varies), given.values, size, generator=generator)
        if varies:
            lengths[name] = _lengths(n, given.shape[0], generator)
            real = real_steps(lengths[name], given.shape[0])
            drawn[name] *= real.view(n, -1, *[1] * (len(given.shape) - 1))
    for name, given in spec.inputs:
        if isinstance(given, Length):
            drawn[name] = lengths[given.of]
        elif isinstance(given, Mask):
            drawn[name] = real_steps(lengths[given.of], spec.shape(name)[0])
    return next(iter(drawn.values())) if spec.is_single else {k: drawn[k] for k, _ in spec.inputs}


def made_up_labels(target: Target, n: int, generator: torch.Generator) -> torch.Tensor:
    """Labels that `target` allows, drawn from `generator` on the CPU: (n, *target.shape)."""
    size = (n, *target.shape)
    if isinstance(target, Classes):
        return torch.randint(target.number, size, generator=generator)
    if isinstance(target, MultiLabel):
        return torch.randint(2, size, generator=generator).float()
    if isinstance(target, Reals):
        # Real labels may lie beyond the bounds, where a loss may do what it does not between them.
        drawn = 4 * torch.rand(size, generator=generator) - 2
        return target.centre + target.half_width * drawn
    if isinstance(target, NextTokens):
        drawn = torch.randint(1, target.values, size, generator=generator)
        return drawn * real_steps(_lengths(n, target.shape[0], generator), target.shape[0])
    if target.dtype == "float32":
        return torch.rand(size, generator=generator)
    # What a user's own whole numbers mean is not known; 0 and 1 are the likeliest to be labels.
    return torch.randint(2, size, generator=generator)


def real_steps(lengths: torch.Tensor, steps: int) -> torch.Tensor:
    """Which steps belong to records of these lengths, bool (n, steps)."""
    return torch.arange(steps, device=lengths.device) < lengths.unsqueeze(1)


def _lengths(n: int, longest: int, generator: torch.Generator) -> torch.Tensor:
    lengths = torch.randint(1, longest + 1, (n,), generator=generator)
    lengths[0] = longest
    lengths[1:2] = 1
    return lengths
