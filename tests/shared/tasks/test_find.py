"""The task that a configuration names: one of four kinds, or the user's own."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from calyx.shared.config.load import build, from_settings
from calyx.shared.config.schema import TaskConfig
from calyx.shared.errors import ModelError
from calyx.shared.models.tryout import try_model
from calyx.shared.record_spec import RecordSpec
from calyx.shared.target import Classes, MultiLabel, NextTokens, OwnTarget, Reals, Target
from calyx.shared.tasks.find import own_task, task_of

TARGETS: dict[str, Target] = {
    "classification": Classes(3),
    "multilabel": MultiLabel(2),
    "regression": Reals(0, 1),
    "next_token": NextTokens((4,), 9),
}
HEADLINES = {"classification": "accuracy", "multilabel": "f1", "regression": "r2"}
HEADLINES["next_token"] = "accuracy"

USERS_MODULE = """
import torch
from torch import nn
from calyx.shared.tasks import Task

def loss(outputs, labels):
    return (outputs[:, 0] - labels).abs()

def model(spec):
    return nn.Linear(*spec.float_shape, 1)

def mean(outputs, labels):
    return loss(outputs, labels).mean()

def balanced(outputs, labels):
    return loss(outputs, labels) * (1 + labels.mean())

def noisy(outputs, labels):
    return loss(outputs, labels) * torch.rand(len(labels))

def fails(outputs, labels):
    raise ValueError("my own\\nreason")

def metric(outputs, labels):
    return loss(outputs, labels).mean()

task = Task(loss, {"mae": metric}, model=model)
mean_task = Task(mean, {"mae": metric}, model=model)
balanced_task = Task(balanced, {"mae": metric}, model=model)
noisy_task = Task(noisy, {"mae": metric}, model=model)
failing_task = Task(fails, {"mae": metric}, model=model)
modelless_task = Task(loss, {"mae": metric})
number = 5

class Inside:
    task = task
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a user's own, on the path."""
    name = "task_of_a_user"
    (tmp_path / f"{name}.py").write_text(USERS_MODULE)
    (tmp_path / "broken_task_of_a_user.py").write_text("raise OSError('two\\nlines')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


@pytest.mark.parametrize("kind", list(TARGETS))
def test_each_kind_goes_with_its_labels_and_has_its_headline(kind: str) -> None:
    task = task_of(TaskConfig(kind=kind), TARGETS[kind])
    assert task.headline.name == HEADLINES[kind]


@pytest.mark.parametrize("kind", list(TARGETS))
def test_a_kind_is_refused_for_labels_of_every_other_kind(kind: str) -> None:
    others = [target for name, target in TARGETS.items() if name != kind]
    for target in [*others, OwnTarget((), "float32")]:
        with pytest.raises(ModelError, match=rf"task\.kind = {kind} cannot be learned from .*"):
            task_of(TaskConfig(kind=kind), target)


def test_class_weights_are_one_for_each_class() -> None:
    outputs, labels = torch.zeros(2, 3), torch.tensor([0, 2])
    plain = task_of(TaskConfig(), Classes(3)).record_losses(outputs, labels)
    weighted = task_of(TaskConfig(class_weights="1,1,3"), Classes(3))
    assert torch.allclose(weighted.record_losses(outputs, labels), plain * torch.tensor([1.0, 3.0]))
    with pytest.raises(ModelError, match="has 3 values, but there are 4 classes"):
        task_of(TaskConfig(class_weights="1,1,3"), Classes(4))


def test_an_own_task_is_taken_from_its_module_whatever_the_labels_are(module: str) -> None:
    for name in ("task", "Inside.task"):
        task = task_of(TaskConfig(kind=f"{module}:{name}"), OwnTarget((), "float32"))
        assert task.headline.name == "mae"
        losses = task.record_losses(torch.ones(2, 1), torch.tensor([3.0, 1.0]))
        assert losses.tolist() == [2.0, 0.0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module_anywhere:task", r"cannot be imported: ModuleNotFoundError: .*PYTHONPATH"),
        ("broken_task_of_a_user:task", "cannot be imported: OSError: two lines"),
        ("task_of_a_user:missing", "cannot be imported: AttributeError"),
        ("task_of_a_user:task.missing", "cannot be imported: AttributeError"),
        ("task_of_a_user:number", "it is a int, not a calyx.Task; .*write task = Task"),
        ("task_of_a_user:loss", "it is a function, not a calyx.Task"),
        ("math:pi", "it is a float, not a calyx.Task"),
    ],
)
def test_what_is_no_task_is_refused_in_one_line_that_names_it(
    module: str, name: str, words: str
) -> None:
    with pytest.raises(ModelError) as caught:
        own_task(name)
    assert f"task.kind = {name}: " in str(caught.value)
    assert re.search(words, caught.value.full_text), caught.value.full_text
    assert "\n" not in caught.value.full_text


def tried(module: str, task: str) -> None:
    settings = [f"task.kind={module}:{task}", "model.name=task", "data.source=npz"]
    private = ["data.directory=/unused", "privacy.unit=record", "privacy.noise=local"]
    config = build(from_settings([*settings, *private]))
    try_model(config, RecordSpec.floats((4,), OwnTarget((), "float32")))


def test_an_own_task_whose_losses_stand_alone_can_be_trained_privately(module: str) -> None:
    tried(module, "task")


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("mean_task", r"loss gave \(\) for 2 records; .*one loss a record"),
        ("balanced_task", "gradient changes with the other records"),
        ("noisy_task", "draws random numbers"),
        ("failing_task", "ValueError: my own reason"),
        ("modelless_task", "the task brings no model"),
    ],
)
def test_an_own_task_that_cannot_be_trained_is_refused_before_any_record_is_read(
    module: str, task: str, words: str
) -> None:
    with pytest.raises(ModelError) as caught:
        tried(module, task)
    assert re.search(words, caught.value.full_text), caught.value.full_text
    assert "\n" not in caught.value.full_text
