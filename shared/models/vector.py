"""A model's trainable parameters as one flat vector: what is clipped, summed and sealed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

Arrays = Mapping[str, NDArray[Any]]


def trainable_names(model: nn.Module) -> list[str]:
    """Names of the trainable parameters, in the model's own order."""
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def frozen_names(model: nn.Module) -> set[str]:
    """Names of the parameters that are not trained; one that is used in two places has two."""
    named = model.named_parameters(remove_duplicate=False)
    return {name for name, parameter in named if not parameter.requires_grad}


def dimension(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def to_vector(arrays: Arrays, names: list[str]) -> NDArray[np.float64]:
    """The named arrays one after the other, float64 (dimension,)."""
    return np.concatenate([np.asarray(arrays[name], np.float64).ravel() for name in names])


def from_vector(vector: NDArray[np.float64], like: Arrays, names: list[str]) -> dict[str, Any]:
    """Inverse of `to_vector`: float64 arrays in the shapes of `like`."""
    parts: dict[str, Any] = {}
    start = 0
    for name in names:
        shape, size = like[name].shape, like[name].size
        parts[name] = vector[start : start + size].reshape(shape)
        start += size
    return parts
