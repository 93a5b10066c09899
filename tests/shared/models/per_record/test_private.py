from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from calyx.shared.config.schema import ModelConfig
from calyx.shared.errors import ModelError
from calyx.shared.models import build_model, check_private
from calyx.shared.models.build import BUILT_IN
from calyx.shared.models.per_record.private import try_private
from calyx.shared.models.recurrent import SequenceLSTM
from calyx.shared.record_spec import RecordSpec
from calyx.shared.target import Classes, MultiLabel, NextTokens, OwnTarget, Reals, Target
from calyx.shared.tasks import Task
from calyx.shared.tasks.classification import classification
from calyx.shared.tasks.task import Losses

THREE = Classes(3)


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (ModelConfig(name="cnn"), (1, 8, 8)),
        (ModelConfig(name="lstm", hidden=8, layers=2), (8, 8)),
        (ModelConfig(name="attention", hidden=8), (8, 8)),
    ],
    ids=["cnn", "lstm", "attention"],
)
def test_the_built_in_models_can_be_private(config: ModelConfig, shape: tuple[int, ...]) -> None:
    model = build_model(config, RecordSpec.floats(shape, Classes(10)), seed=0)
    assert type(model) in BUILT_IN
    check_private(model)
    try_private(model, RecordSpec.floats(shape, Classes(10)), classification(Classes(10)))


def test_models_of_allowed_layers_can_be_private() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Dropout(0.0), nn.Flatten())
    model.append(nn.Linear(144, 3))
    check_private(model)
    try_private(model, RecordSpec.floats((1, 8, 8), THREE), classification(THREE))


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.BatchNorm2d(1), "GroupNorm"),
        (nn.BatchNorm2d(1, affine=False), "GroupNorm"),
        (nn.BatchNorm2d(1, affine=False, track_running_stats=False), "GroupNorm"),
        (nn.SyncBatchNorm(1), "GroupNorm"),
        (nn.InstanceNorm2d(1, affine=True, track_running_stats=True), "track_running_stats"),
        (nn.InstanceNorm2d(1, track_running_stats=True), "track_running_stats"),
        (nn.LSTM(3, 3), "SequenceLSTM"),
        (nn.GRU(3, 3), "SequenceGRU"),
        (nn.MultiheadAttention(4, 2), "SelfAttention"),
        (nn.Dropout(0.5), "p=0"),
        (nn.Dropout2d(0.1), "p=0"),
        (nn.AlphaDropout(0.1), "p=0"),
        (nn.RReLU(), "random numbers"),
        (nn.FractionalMaxPool2d(2, output_size=2), "random numbers"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_layer_that_mixes_or_remembers_records_is_refused_by_name(
    layer: nn.Module, words: str
) -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(3, 3), layer))
    with pytest.raises(ModelError) as caught:
        check_private(model)
    message = caught.value.full_text
    assert "layer 0.1 " in message
    assert type(layer).__name__ in message
    assert words in message
    assert "\n" not in message


def test_a_model_without_trainable_parameters_is_refused() -> None:
    model = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ModelError, match="no trainable parameters"):
        check_private(model)


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)


class MeanOfTheBatch(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(x - x.mean(dim=0))
        return logits


class HiddenMeanOfTheBatch(Base):
    """Mixes records where weights that a sender chose, all of them zero, would not show it."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(x - x.mean(dim=0))
        return logits


class DrawsNumbers(Base):
    """A dropout of its own, and no layer that would tell."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(nn.functional.dropout(x, 0.5, self.training))
        return logits


class DrawsWithoutPyTorch(Base):
    def __init__(self) -> None:
        super().__init__()
        self.generator = np.random.default_rng(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(x * float(self.generator.random()))
        return logits


class DrawsForNothing(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(x + 0 * torch.rand_like(x))
        return logits


class CountsRecords(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += x.sum()
        logits: torch.Tensor = self.layer(x)
        return logits


class UsesAWeightOfTheLayer(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(x) + nn.functional.linear(x, self.layer.weight)
        return logits


class ComputesIn(nn.Module):
    """One layer in another precision: sums of float16 products are off by parts in a thousand."""

    def __init__(self, precision: torch.dtype) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 8, dtype=precision), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.inner(x.to(self.inner.weight.dtype))
        logits: torch.Tensor = self.outer(inner.float())
        return logits


class CastsItself(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits: torch.Tensor = self.layer(x)
        return logits.float()


class Fails(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("my own\nreason")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (MeanOfTheBatch(), "other records of the batch"),
        (CountsRecords(), "buffer seen"),
        (HiddenMeanOfTheBatch(), "across the batch"),
        (DrawsNumbers(), "random numbers"),
        (DrawsWithoutPyTorch(), "random numbers"),
        (DrawsForNothing(), "random numbers"),
        (UsesAWeightOfTheLayer(), "layer.weight is used outside"),
        (ComputesIn(torch.float16), "layer inner .* computes in torch.float16"),
        (ComputesIn(torch.bfloat16), "layer inner .* computes in torch.bfloat16"),
        (ComputesIn(torch.float64), "layer inner .* computes in torch.float64"),
        (CastsItself(), "layer layer .* computes in torch.bfloat16"),
        (Fails(), "ValueError: my own reason"),
    ],
    ids=[
        "mean",
        "buffer",
        "hidden mean",
        "dropout",
        "own random",
        "unused random",
        "weight",
        "float16",
        "bfloat16",
        "float64",
        "autocast",
        "fails",
    ],
)
def test_what_hides_in_a_forward_is_found_on_made_up_records(model: nn.Module, words: str) -> None:
    check_private(model)
    with pytest.raises(ModelError, match=words) as caught:
        try_private(model, RecordSpec.floats((4,), THREE), classification(THREE))
    assert "\n" not in str(caught.value)


TARGETS = [Classes(2), Classes(3), Classes(10), MultiLabel(1), MultiLabel(3), Reals(0, 1)]
TARGETS += [NextTokens((3,), 5), OwnTarget((2,), "float32"), OwnTarget((), "int64")]


class Steps(nn.Module):
    """One answer for each step."""

    def __init__(self, features: int, target: NextTokens) -> None:
        super().__init__()
        self.shape, self.layer = target.output_shape, nn.Linear(features, target.values * 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.layer(x).view(-1, *self.shape)
        return outputs


def plain(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of one record, for labels of any kind."""
    towards = labels.reshape(len(labels), -1).float().mean(dim=1, keepdim=True)
    return (outputs.flatten(1) - towards).square().sum(dim=1)


def by_the_mean_label(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return plain(outputs, labels) * (1 + labels.float().mean())


def by_how_many_have_the_label(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Classes balanced within the batch, as one would do without privacy."""
    flat = labels.reshape(len(labels), -1)
    return plain(outputs, labels) / (flat.unsqueeze(0) == flat.unsqueeze(1)).all(2).sum(dim=1)


def by_the_outputs_of_others(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return plain(outputs - outputs.mean(dim=0), labels)


def by_chance(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return plain(outputs, labels) * torch.rand(len(labels))


def by_chance_without_pytorch(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return plain(outputs, labels) * float(np.random.default_rng().random())


def loss_tried(target: Target, features: int, losses: Losses) -> None:
    """Try a model of `features` inputs with this loss, whose values draw other labels each."""
    steps = isinstance(target, NextTokens)
    model = Steps(features, target) if steps else nn.Linear(features, target.outputs)
    task = Task(losses, {"half": lambda outputs, labels: 0.5})
    try_private(model, RecordSpec.floats((features,), target), task)


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize(
    "losses",
    [by_the_mean_label, by_how_many_have_the_label, by_the_outputs_of_others],
    ids=lambda function: function.__name__,
)
def test_a_loss_in_which_other_records_have_a_part_is_refused(
    losses: Losses, target: Target
) -> None:
    for features in range(1, 13):
        loss_tried(target, features, plain)
        with pytest.raises(ModelError, match="changes with the other records of the batch"):
            loss_tried(target, features, losses)


@pytest.mark.parametrize("losses", [by_chance, by_chance_without_pytorch])
def test_a_loss_that_draws_random_numbers_is_refused(losses: Losses) -> None:
    with pytest.raises(ModelError, match="draws random numbers"):
        loss_tried(Classes(3), 4, losses)


def test_a_loss_that_is_not_one_a_record_is_refused_with_what_to_return() -> None:
    with pytest.raises(
        ModelError, match=r"gave \(\) for 2 records\nhint: .*no mean over the batch"
    ):
        loss_tried(Classes(3), 4, lambda outputs, labels: plain(outputs, labels).mean())


def test_trying_leaves_model_and_random_state_as_they_were() -> None:
    model = nn.Sequential(DrawsNumbers(), CountsRecords())
    model.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    with pytest.raises(ModelError):
        try_private(model, RecordSpec.floats((4,), THREE), classification(THREE))
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_the_replacement_for_pytorchs_lstm_is_accepted() -> None:
    check_private(nn.Sequential(SequenceLSTM(3, 3)))


def test_opacus_loads_only_when_needed_and_leaves_logging_alone() -> None:
    program = (
        "import logging, sys, torch, calyx.shared.models\n"
        "from calyx.shared.models import check_private\n"
        "assert 'opacus' not in sys.modules\n"
        "check_private(torch.nn.Linear(2, 2))\n"
        "assert 'opacus' in sys.modules\n"
        "assert logging.getLogger().handlers == []\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert isinstance(logging.getLogger(), logging.Logger)
