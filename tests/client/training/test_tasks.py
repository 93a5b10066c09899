"""Every kind of task, trained as autograd says record by record: tokens, several inputs, texts.

The sums of the trainer are held against those of one backward pass a record, which shares neither
hooks nor norms with it, and takes losses from formulas that are written out here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from calyx.client.training.dp_sgd import clipped_gradient_sum
from calyx.client.training.local import train_locally
from calyx.shared.config.schema import TrainingConfig
from calyx.shared.data import Dataset
from calyx.shared.data.dataset import rows
from calyx.shared.models.inputs import call, made_up, made_up_labels, real_steps, tensors
from calyx.shared.models.recurrent import RecurrentStack
from calyx.shared.record_spec import Floats, Length, Mask, RecordSpec, Tokens
from calyx.shared.target import Classes, MultiLabel, NextTokens, OwnTarget, Reals
from calyx.shared.tasks import Task
from calyx.shared.tasks.classification import classification
from calyx.shared.tasks.multilabel import multilabel
from calyx.shared.tasks.next_token import next_token
from calyx.shared.tasks.regression import regression
from tests.client.training.private_training import CLIP, RATE, NoNoise, flat, make_private_plan

RECORDS, STEPS, WORDS = 13, 6, 9
LossOfOne = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Sentence(nn.Module):
    """Tokens, their number, and values beside them."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 4, padding_idx=0)
        self.stack = RecurrentStack("gru", 4, 4)
        self.head = nn.Linear(6, outputs)

    def forward(
        self, tokens: torch.Tensor, length: torch.Tensor, beside: torch.Tensor
    ) -> torch.Tensor:
        states = self.stack(self.words(tokens), length)
        last = self.stack.last(states, length)
        outputs: torch.Tensor = self.head(torch.cat([last, beside], dim=1))
        return outputs


class Signal(nn.Module):
    """The mean over the real steps of a signal."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(3, 5), nn.Linear(5, outputs)

    def forward(self, signal: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        states = torch.tanh(self.inner(signal)) * real.unsqueeze(2)
        outputs: torch.Tensor = self.head(states.sum(dim=1) / real.sum(1, keepdim=True).clamp(1))
        return outputs


class Writer(nn.Module):
    """What follows each step of a text."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 4, padding_idx=0)
        self.stack, self.head = RecurrentStack("lstm", 4, 5), nn.Linear(5, WORDS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.stack(self.words(x)))
        return outputs


def bag_of_words(outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Embedding(WORDS, 4, padding_idx=0), nn.Flatten(), nn.Linear(24, outputs)
    )


def absolute(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (outputs - labels).abs().mean(dim=1)


def text_loss(outputs: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    real = label != 0
    if not real.any():
        return 0 * outputs.sum()
    return nn.functional.cross_entropy(outputs[real], label[real])


TEXT = {"tokens": Tokens((STEPS,), WORDS), "length": Length("tokens"), "beside": Floats((2,))}
MOTION = {"signal": Floats((STEPS, 3)), "real": Mask("signal")}


@dataclass(frozen=True)
class Case:
    """A task, records for it, a model, and the loss of one record as written out."""

    spec: RecordSpec
    task: Task
    model: Callable[[], nn.Module]
    loss: LossOfOne


CASES = {
    "tokens, classes": Case(
        RecordSpec.tokens((STEPS,), WORDS, Classes(3)),
        classification(Classes(3)),
        lambda: bag_of_words(3),
        lambda o, y: nn.functional.cross_entropy(o, y),
    ),
    "several inputs, weighted classes": Case(
        RecordSpec.of(Classes(3), **TEXT),
        classification(Classes(3), (0.5, 1.0, 3.0)),
        lambda: Sentence(3),
        lambda o, y: (0.5, 1.0, 3.0)[int(y)] * nn.functional.cross_entropy(o, y),
    ),
    "several inputs, real values": Case(
        RecordSpec.of(Reals(-2, 6), **TEXT),
        regression(Reals(-2, 6)),
        lambda: Sentence(1),
        lambda o, y: (o[0] - (y - 2) / 4) ** 2,
    ),
    "mask, several labels": Case(
        RecordSpec.of(MultiLabel(4), **MOTION),
        multilabel(MultiLabel(4)),
        lambda: Signal(4),
        lambda o, y: nn.functional.binary_cross_entropy_with_logits(o, y),
    ),
    "next token": Case(
        RecordSpec.tokens((STEPS,), WORDS, NextTokens((STEPS,), WORDS)),
        next_token(NextTokens((STEPS,), WORDS)),
        Writer,
        text_loss,
    ),
    "own, vectors": Case(
        RecordSpec.floats((5,), OwnTarget((2,), "float32")),
        Task(absolute, {"mae": lambda o, y: (o - y).abs().mean()}),
        lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)),
        lambda o, y: (o - y).abs().mean(),
    ),
}


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def records(case: Case) -> Dataset:
    generator = torch.Generator().manual_seed(4)
    drawn = made_up(case.spec, RECORDS, generator)
    labels = made_up_labels(case.spec.target, RECORDS, generator).numpy()
    if isinstance(drawn, dict):
        features: object = {name: x.numpy() for name, x in drawn.items()}
    else:
        features = drawn.numpy()
    return Dataset(features, labels, case.spec.target, inputs=dict(case.spec.inputs))  # type: ignore[arg-type]


def model_of(case: Case, scale: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    model = case.model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    return model


def gradients(case: Case, model: nn.Module, data: Dataset) -> list[torch.Tensor]:
    """Each record's, from a model that is given this record and no other."""
    found = []
    for number in range(len(data)):
        alone = np.array([number])
        outputs = call(model, tensors(rows(data.features, alone)))[0]
        loss = case.loss(outputs, torch.from_numpy(data.labels[alone])[0])
        parts = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
        found.append(torch.cat([part.flatten() for part in parts]).double())
    return found


def clipped(gradient: torch.Tensor, clip_norm: float) -> torch.Tensor:
    return gradient * min(1.0, clip_norm / float(gradient.norm()) if gradient.any() else 1.0)


@pytest.mark.parametrize("clip_norm", [0.02, CLIP, 100.0])
def test_a_clipped_sum_is_that_of_one_backward_pass_a_record(case: Case, clip_norm: float) -> None:
    model, data = model_of(case), records(case)
    plan = replace(make_private_plan(RECORDS, RECORDS), noise="distributed", clip_norm=clip_norm)
    found, count = clipped_gradient_sum(model, data, case.task, plan, NoNoise())
    each = gradients(case, model, data)
    expected = torch.stack([clipped(gradient, clip_norm) for gradient in each]).sum(dim=0).numpy()
    assert count == RECORDS
    assert any(gradient.norm() > clip_norm for gradient in each) or clip_norm == 100.0
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-5 * np.abs(expected).max())


def test_a_private_step_moves_by_the_clipped_sum_of_its_batch_alone(case: Case) -> None:
    model, data, batch = model_of(case), records(case), [0, 3, 4, 12]
    before = flat(model)
    each = gradients(case, model, data)
    expected = torch.stack([clipped(each[i], CLIP) for i in batch]).sum(dim=0).float()
    log = train_locally(
        model,
        data,
        case.task,
        TrainingConfig(learning_rate=RATE),
        make_private_plan(RECORDS, 5),
        proximal_mu=0.0,
        noise=NoNoise(batch),
        order_seed=1,
    )
    assert log.batch_sizes == (4,)
    assert torch.allclose(flat(model), before - RATE * expected / 5, atol=1e-6)


def test_plain_training_steps_by_the_mean_gradient(case: Case) -> None:
    model, data = model_of(case, 0.3), records(case)
    before, each = flat(model), gradients(case, model, data)
    plan = replace(
        make_private_plan(RECORDS, RECORDS), unit="none", noise="none", noise_multiplier=0.0
    )
    log = train_locally(
        model,
        data,
        case.task,
        TrainingConfig(learning_rate=RATE),
        plan,
        proximal_mu=0.0,
        noise=NoNoise(),
        order_seed=1,
    )
    expected = torch.stack(each).mean(dim=0).float()
    assert log.batch_sizes == (RECORDS,)
    assert torch.allclose(flat(model), before - RATE * expected, atol=1e-6)


@pytest.mark.parametrize("name", ["several inputs, real values", "next token"])
def test_what_stands_in_the_padding_moves_nothing(name: str) -> None:
    case = CASES[name]
    data = records(case)
    plan = replace(make_private_plan(RECORDS, RECORDS), noise="distributed")
    if name == "next token":
        # Of a text that ends, what the model says afterwards is not judged.
        last = (data.labels != 0).sum(axis=1)
        real = real_steps(torch.from_numpy(last), STEPS).numpy()
        features: object = np.where(real, data.columns["x"], WORDS - 1)
    else:
        real = real_steps(torch.from_numpy(data.columns["length"]), STEPS).numpy()
        features = data.columns | {"tokens": np.where(real, data.columns["tokens"], WORDS - 1)}
    noisy = replace(data, features=features)  # type: ignore[arg-type]
    assert noisy.fingerprint != data.fingerprint
    sums = [
        clipped_gradient_sum(model_of(case), given, case.task, plan, NoNoise())[0]
        for given in (data, noisy)
    ]
    assert np.array_equal(*sums)


def test_one_record_moves_the_sum_by_at_most_the_clip_norm_whatever_its_label(case: Case) -> None:
    data = records(case)
    model = model_of(case, 3.0)
    plan = replace(make_private_plan(RECORDS, 5), noise="distributed")
    everyone = list(range(RECORDS))
    whole = clipped_gradient_sum(model, data, case.task, plan, NoNoise(everyone))[0]
    labels = data.labels.copy()
    labels[7] = labels[2]
    changed = replace(data, labels=labels)
    for record in (0, 7, 12):
        rest = [i for i in everyone if i != record]
        without = clipped_gradient_sum(model, data, case.task, plan, NoNoise(rest))[0]
        assert np.linalg.norm(whole - without) <= CLIP * (1 + 1e-6)
    without = clipped_gradient_sum(
        model, data, case.task, plan, NoNoise([i for i in everyone if i != 7])
    )[0]
    other = clipped_gradient_sum(model, changed, case.task, plan, NoNoise(everyone))[0]
    assert np.linalg.norm(other - without) <= CLIP * (1 + 1e-6)
