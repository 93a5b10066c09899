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
from calyx.shared.models.cnn1d import Cnn1d
from calyx.shared.models.freeze import freeze
from calyx.shared.models.inputs import call, made_up
from calyx.shared.models.lstm import Lstm
from calyx.shared.models.mlp import Mlp
from calyx.shared.models.seeding import torch_seeded
from calyx.shared.record_spec import RecordSpec, Tokens
from calyx.shared.target import OwnTarget
from calyx.shared.tasks.task import Task

BUILT_IN: tuple[type[nn.Module], ...] = (Cnn, Cnn1d, Mlp, Lstm, AttentionEncoder)


def build_model(
    config: ModelConfig, spec: RecordSpec, seed: int, task: Task | None = None
) -> nn.Module:
    """Build the model that `config` names, with weights that depend only on `seed`.

    PyTorch's global random state is left as it was.

    Args:
        config: the model; ``name`` may be ``module:function``, which is imported and called as
            ``function(input_shape, outputs)``, or ``function(spec, outputs)`` where a record is
            not one float32 tensor, and returns an `nn.Module`. ``task`` is the model that a task
            of the user's own brings.
        spec: what is public about a record.
        seed: seed of the weights.
        task: of the run; only ``task`` needs it.

    Raises:
        ModelError: unknown name, a record or target the model does not take, a user's function
            that cannot be imported or called or does not return a fitting module, or patterns of
            ``model.freeze`` that do not fit.
    """
    with torch_seeded(seed):
        model = _built(config, spec, task)
    freeze(model, config.freeze)
    return model


def _built(config: ModelConfig, spec: RecordSpec, task: Task | None) -> nn.Module:
    if config.name == "task":
        return _tasks_model(task, spec)
    if ":" in config.name:
        return _users_model(config.name, spec)
    match config.name:
        case "cnn":
            return Cnn(*_whole(config.name, spec), dropout=config.dropout)
        case "mlp" | "cnn1d":
            flat = Mlp if config.name == "mlp" else Cnn1d
            return flat(
                *_whole(config.name, spec),
                hidden=config.hidden,
                layers=config.layers,
                dropout=config.dropout,
            )
        case "lstm":
            shape, values, each_step = _sequence(config.name, spec)
            return Lstm(
                shape,
                spec.target.outputs,
                hidden=config.hidden,
                layers=config.layers,
                values=values,
                embedding=config.embedding,
                token_scale=config.token_scale,
                bidirectional=config.bidirectional,
                mean=config.mean_over_steps,
                each_step=each_step,
                dropout=config.dropout,
            )
        case "attention":
            shape, values, each_step = _sequence(config.name, spec)
            return AttentionEncoder(
                shape,
                spec.target.outputs,
                hidden=config.hidden,
                layers=config.layers,
                heads=config.heads,
                values=values,
                token_scale=config.token_scale,
                each_step=each_step,
                dropout=config.dropout,
            )
    raise ModelError(
        f"model.name = {config.name}: no such model",
        hint="use cnn, cnn1d, mlp, lstm, attention or module:function",
    )


def _whole(name: str, spec: RecordSpec) -> tuple[tuple[int, ...], int]:
    """Shape of a record of floats, and how many numbers a model gives for the whole of it."""
    if spec.float_shape is None:
        raise ModelError(
            f"model.name = {name}: it takes one float32 tensor a record, and the data have {spec}",
            hint="use lstm or attention for tokens, or a model of your own, module:function",
        )
    if len(spec.target.output_shape) != 1:
        raise ModelError(
            f"model.name = {name}: it decides once a record, and the task asks for {spec.target}",
            hint="use lstm or attention, which answer at each step",
        )
    return spec.float_shape, spec.target.outputs


def _sequence(name: str, spec: RecordSpec) -> tuple[tuple[int, ...], int | None, bool]:
    """Shape of a sequence, how many tokens there are (None: floats), and whether each step is
    answered.
    """
    given = spec.inputs[0][1]
    values = given.values if spec.is_single and isinstance(given, Tokens) else None
    shape = spec.float_shape if values is None else spec.shape(spec.inputs[0][0])
    if shape is None:
        raise ModelError(
            f"model.name = {name}: it takes one input a record, and the data have {spec}",
            hint="use a model of your own, module:function",
        )
    each_step = len(spec.target.output_shape) == 2
    if each_step and spec.target.output_shape[:1] != shape[:1]:
        raise ModelError(
            f"model.name = {name}: it answers at each step of {spec}, and the task asks for "
            f"{spec.target}",
            hint="give one label a step",
        )
    return shape, values, each_step


def _tasks_model(task: Task | None, spec: RecordSpec) -> nn.Module:
    if task is None or task.model is None:
        raise ModelError(
            "model.name = task: the task brings no model",
            hint="give the Task a model, or name another",
        )
    try:
        model = task.model(spec)
    except Exception as error:
        raise ModelError(
            f"the task's model cannot be built for records of {spec}: {_one_line(error)}",
            hint="the function takes a RecordSpec and returns a torch.nn.Module",
        ) from error
    return _tried("the task's model", model, spec)


def _users_model(name: str, spec: RecordSpec) -> nn.Module:
    function = _imported(name)
    first = "a RecordSpec" if spec.float_shape is None else "the input shape"
    outputs = spec.target.outputs
    try:
        model = function(spec if spec.float_shape is None else spec.float_shape, outputs)
    except Exception as error:
        raise ModelError(
            f"model.name = {name}: calling it with {spec} and {outputs} failed with "
            f"{_one_line(error)}",
            hint=f"the function must take {first} and the number of classes",
        ) from error
    return _tried(f"model.name = {name}", model, spec)


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


def _tried(what: str, model: Any, spec: RecordSpec) -> nn.Module:
    """Two made-up records through the model, so that a misfit shows before the run starts."""
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"{what}: it must return a torch.nn.Module, not a {type(model).__name__}",
            hint="return the model itself",
        )
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            outputs = call(model, made_up(spec, 2, torch.Generator().manual_seed(0)))
    except Exception as error:
        raise ModelError(
            f"{what}: it does not take records of shape {spec}: {_one_line(error)}",
            hint="set data.view, or change the model",
        ) from error
    finally:
        model.train(was_training)
    if isinstance(spec.target, OwnTarget):
        return model  # only its loss knows what it takes
    wanted = (2, *spec.target.output_shape)
    shape = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
    if shape != wanted:
        raise ModelError(
            f"{what}: for 2 records of {spec.target} it returned {shape}",
            hint=f"return a tensor of shape {wanted}",
        )
    return model


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text[:300]}"
