"""From a config to its task: one of the four kinds, or the user's own as ``module:object``."""

from __future__ import annotations

import importlib
from dataclasses import replace
from functools import lru_cache
from typing import Any

from calyx.shared.config.schema import TaskConfig
from calyx.shared.errors import ModelError
from calyx.shared.target import Classes, MultiLabel, NextTokens, Reals, Target
from calyx.shared.tasks.classification import classification
from calyx.shared.tasks.multilabel import multilabel
from calyx.shared.tasks.next_token import next_token
from calyx.shared.tasks.regression import regression
from calyx.shared.tasks.task import Task


# What was tried out with a task is remembered by it: the same configuration gives the same object.
@lru_cache(maxsize=32)
def task_of(config: TaskConfig, target: Target) -> Task:
    """The task that `config` names, for records with these labels.

    Args:
        config: the kind of the task, or ``module:object``, which is imported.
        target: what the labels are.

    Raises:
        ModelError: the labels are of another kind, or the user's object cannot be imported or is
            no task.
    """
    task = own_task(config.kind) if config.is_own else _built_in(config, target)
    if config.copies == 1:
        return task
    return replace(task, augment=config.augment, copies=config.copies)


def _built_in(config: TaskConfig, target: Target) -> Task:
    if config.kind == "classification" and isinstance(target, Classes):
        weights = config.weights
        if weights and len(weights) != target.number:
            raise ModelError(
                f"task.class_weights has {len(weights)} values, but there are {target}",
                hint="give one for each class, in their order",
            )
        return classification(target, weights)
    if config.kind == "multilabel" and isinstance(target, MultiLabel):
        return multilabel(target)
    if config.kind == "regression" and isinstance(target, Reals):
        return regression(target)
    if config.kind == "next_token" and isinstance(target, NextTokens):
        return next_token(target)
    raise ModelError(
        f"task.kind = {config.kind} cannot be learned from labels of this kind: {target}",
        hint="choose the task or the labels so that they fit",
    )


def own_task(name: str) -> Task:
    """The object that ``module:object`` names.

    Raises:
        ModelError: it cannot be imported, or is no `Task`.
    """
    module_name, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:
        # The user's module may fail with anything while it is imported.
        text = " ".join(str(error).split()) or "no message"
        raise ModelError(
            f"task.kind = {name}: it cannot be imported: {type(error).__name__}: {text[:300]}",
            hint="give --task module:object where the module is, or put its folder on PYTHONPATH",
        ) from error
    if not isinstance(found, Task):
        raise ModelError(
            f"task.kind = {name}: it is a {type(found).__name__}, not a calyx.Task",
            hint="write task = Task(losses, metrics, records, model)",
        )
    return found
