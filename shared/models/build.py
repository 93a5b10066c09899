"""From a config to a model: the built-in ones, or the user's own as ``module:function``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from calyx.shared.config.schema import ModelConfig
from calyx.shared.errors import ModelError
from calyx.shared.models.attention import AttentionEncoder
from calyx.shared.models.cnn import Cnn
from calyx.shared.models.inputs import call, made_up
from calyx.shared.models.lstm import Lstm
from calyx.shared.models.seeding import torch_seeded
from calyx.shared.record_spec import RecordSpec

BUILT_IN: tuple[type[nn.Module], ...] = (Cnn, Lstm, AttentionEncoder)


def build_model(config: ModelConfig, spec: RecordSpec, classes: int, seed: int) -> nn.Module:
    """Build the model that `config` names, with weights that depend only on `seed`.

    PyTorch's global random state is left as it was.

    Args:
        config: the model; ``name`` may be ``module:function``, which is imported and called as
            ``function(input_shape, classes)``, or ``function(spec, classes)`` where a record is
            not one float32 tensor, and returns an `nn.Module`.
        spec: what is public about a record's inputs.
        classes: number of classes.
        seed: seed of the weights.

    Raises:
        ModelError: unknown name, a shape the model does not take, or a user's function that
            cannot be imported or called or does not return a fitting module.
    """
    with torch_seeded(seed):
        if ":" in config.name:
            return _users_model(config.name, spec, classes)
        input_shape = _float_shape(config.name, spec)
        if config.name == "cnn":
            return Cnn(input_shape, classes)
        if config.name == "lstm":
            return Lstm(input_shape, classes, hidden=config.hidden, layers=config.layers)
        if config.name == "attention":
            return AttentionEncoder(
                input_shape,
                classes,
                hidden=config.hidden,
                layers=config.layers,
                heads=config.heads,
            )
    raise ModelError(
        f"model.name = {config.name}: no such model",
        hint="use cnn, lstm, attention or module:function",
    )


def _float_shape(name: str, spec: RecordSpec) -> tuple[int, ...]:
    if spec.float_shape is None:
        raise ModelError(
            f"model.name = {name}: it takes one float32 tensor a record, and the data have {spec}",
            hint="use a model of your own, module:function",
        )
    return spec.float_shape


def _users_model(name: str, spec: RecordSpec, classes: int) -> nn.Module:
    function = _imported(name)
    first = "a RecordSpec" if spec.float_shape is None else "the input shape"
    try:
        model = function(spec if spec.float_shape is None else spec.float_shape, classes)
    except Exception as error:
        raise ModelError(
            f"model.name = {name}: calling it with {spec} and {classes} failed with "
            f"{_one_line(error)}",
            hint=f"the function must take {first} and the number of classes",
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"model.name = {name}: it must return a torch.nn.Module, not a {type(model).__name__}",
            hint="return the model itself",
        )
    _try_out(name, model, spec, classes)
    return model


def _imported(name: str) -> Callable[..., Any]:
    module_name, _, function_name = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in function_name.split("."):
            found = getattr(found, part)
    except Exception as error:
        # The user's module may fail with anything while it is imported.
        raise ModelError(
            f"model.name = {name}: it cannot be imported: {_one_line(error)}",
            hint="write module:function and put the module's folder on PYTHONPATH",
        ) from error
    if not callable(found):
        raise ModelError(
            f"model.name = {name}: {function_name} is not a function",
            hint="name a function that returns a torch.nn.Module",
        )
    function: Callable[..., Any] = found
    return function


def _try_out(name: str, model: nn.Module, spec: RecordSpec, classes: int) -> None:
    """Two made-up records through the model, so that a misfit shows before the run starts."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits = call(model, made_up(spec, 2, torch.Generator().manual_seed(0)))
    except Exception as error:
        raise ModelError(
            f"model.name = {name}: it does not take records of shape {spec}: {_one_line(error)}",
            hint="set data.view, or change the model",
        ) from error
    finally:
        model.train(was_training)
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (2, classes):
        raise ModelError(
            f"model.name = {name}: for 2 records of {classes} classes it returned {shape}",
            hint=f"return logits of shape (2, {classes})",
        )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text[:300]}"
