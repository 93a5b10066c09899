from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

from calyx.shared.config.schema import ModelConfig
from calyx.shared.errors import ModelError
from calyx.shared.models import build_model
from calyx.shared.models.per_record.gradients import watched
from calyx.shared.record_spec import RecordSpec

Sums = dict[nn.Parameter, torch.Tensor]
Clipped = Callable[[nn.Module, torch.Tensor, torch.Tensor, float], Sums]

SHAPES: dict[str, tuple[int, ...]] = {
    "cnn": (1, 8, 8),
    "lstm": (6, 5),
    "lstm2": (6, 5),
    "attention": (6, 5),
    "grouped": (2, 6, 6),
    "channels_last": (2, 6, 6),
    "embedding": (7,),
    "own": (5,),
    "twice": (5,),
    "tied": (5,),
    "inplace": (1, 6, 6),
    "dplstm": (6, 5),
    "frozen": (5,),
    "unused": (5,),
}


class Scale(nn.Module):
    """A layer no library has a formula for."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
        self.inner = nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.inner(x) * self.scale)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(torch.tanh(self.layer(torch.tanh(self.layer(x)))))
        return logits


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))
        return logits


class Whole(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * 9).long()


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.unused(x)
        logits: torch.Tensor = self.used(x)
        return logits


class OpacusLstm(nn.Module):
    def __init__(self) -> None:
        from opacus.layers import DPLSTM

        super().__init__()
        self.lstm, self.head = DPLSTM(5, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.lstm(x)[0][:, -1])
        return logits


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    shape = SHAPES[name]
    if name in ("cnn", "attention"):
        return build_model(
            ModelConfig(name=name, hidden=8, heads=2), RecordSpec.floats(shape), 3, seed=0
        )
    if name in ("lstm", "lstm2"):
        config = ModelConfig(name="lstm", hidden=8, layers=1 + (name == "lstm2"))
        return build_model(config, RecordSpec.floats(shape), 3, seed=0)
    if name in ("grouped", "channels_last"):
        layers = [nn.Conv2d(2, 4, 3, groups=2, dilation=2), nn.GroupNorm(2, 4), nn.Flatten()]
        model = nn.Sequential(nn.Conv2d(2, 2, 1), *layers, nn.Linear(16, 3))
        return model.to(memory_format=torch.channels_last) if name == "channels_last" else model
    if name == "embedding":
        return nn.Sequential(Whole(), nn.Embedding(9, 4), nn.Flatten(), nn.Linear(28, 3))
    if name == "own":
        return nn.Sequential(Scale(), nn.Linear(5, 3))
    if name == "inplace":
        return nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(48, 3)
        )
    if name == "frozen":
        model = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3))
        model[0].weight.requires_grad_(False)
        model[2].bias.requires_grad_(False)
        return model
    return {"twice": Twice, "tied": Tied, "dplstm": OpacusLstm, "unused": Unused}[name]()


def records(name: str, n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    # Of very different sizes, so that some gradients are clipped and some are not.
    sizes = torch.logspace(-2, 1, n).view(-1, *[1] * len(SHAPES[name]))
    x = torch.rand(n, *SHAPES[name], generator=generator)
    if name == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    return x if name == "embedding" else x * sizes, torch.arange(n) % 3


def clipped(model: nn.Module, x: torch.Tensor, y: torch.Tensor, clip_norm: float) -> Sums:
    with watched(model) as gradients:
        losses = nn.functional.cross_entropy(model(x), y, reduction="none")
        return gradients.clipped_sum(losses, clip_norm)


def assert_equal(found: Sums, expected: Sums) -> None:
    assert set(found) == set(expected)
    scale = max(float(g.abs().max()) for g in expected.values())
    for p, g in expected.items():
        assert torch.allclose(found[p].double(), g.double(), rtol=5e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("name", list(SHAPES))
@pytest.mark.parametrize("clip_norm", [0.05, 1.0, float("inf")])
def test_clipped_sums_are_those_of_one_autograd_call_a_record(
    name: str, clip_norm: float, clipped_by_hand: Clipped
) -> None:
    x, y = records(name)
    model = make(name)
    assert_equal(clipped(model, x, y, clip_norm), clipped_by_hand(model, x, y, clip_norm))


@pytest.mark.parametrize("name", ["cnn", "lstm", "lstm2", "attention"])
@pytest.mark.parametrize("mode", ["hooks", "ghost"])
def test_clipped_sums_are_those_of_opacus_itself(name: str, mode: str) -> None:
    """Also shows that Opacus' own two modes can train our layers."""
    from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    import calyx.shared.models.per_record.opacus_bridge  # noqa: F401  (registers SequenceLSTM with Opacus)

    x, y = records(name)
    model, clip_norm = make(name), 0.5
    found = clipped(model, x, y, clip_norm)
    if name == "cnn":
        # Opacus 1.6 misreads channels-last inputs of a convolution, which ours has.
        model.conv2.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    settings = {"noise_multiplier": 0.0, "max_grad_norm": clip_norm, "expected_batch_size": 1}
    sgd = torch.optim.SGD(model.parameters(), lr=0.0)
    criterion = nn.CrossEntropyLoss(reduction="sum")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        if mode == "hooks":
            wrapped = GradSampleModule(model, loss_reduction="sum")
            optimizer = DPOptimizer(sgd, loss_reduction="sum", **settings)
            criterion(wrapped(x), y).backward()
        else:
            wrapped = GradSampleModuleFastGradientClipping(
                model, loss_reduction="sum", max_grad_norm=clip_norm
            )
            optimizer = DPOptimizerFastGradientClipping(sgd, loss_reduction="sum", **settings)
            loss = DPLossFastGradientClipping(wrapped, optimizer, criterion, "sum")
            loss(wrapped(x), y).backward()
        optimizer.step()
    assert_equal(found, {p: p.grad for p in model.parameters() if p.grad is not None})


@pytest.mark.parametrize("name", ["cnn", "lstm", "attention", "own", "twice"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_a_record_without_a_finite_gradient_contributes_nothing(
    name: str, bad: float, clipped_by_hand: Clipped
) -> None:
    x, y = records(name)
    poisoned = x.clone()
    poisoned[2] = bad
    keep = torch.tensor([0, 1, 3, 4, 5])
    model = make(name)
    found = clipped(model, poisoned, y, 0.5)
    others = clipped_by_hand(model, x[keep], y[keep], 0.5)
    assert all(bool(torch.isfinite(g).all()) for g in found.values())
    if bad != 1e30:
        assert_equal(found, others)
    distance = torch.stack([(found[p] - others[p]).norm() for p in others]).norm()
    assert float(distance) <= 0.5 * (1 + 1e-5)


def test_one_record_moves_the_sum_by_at_most_the_clip_norm() -> None:
    x, y = records("cnn")
    model, clip_norm = make("cnn"), 0.3
    for scale in (1.0, 1e3, 1e6):
        changed = x.clone()
        changed[0] *= scale
        with_it = clipped(model, changed, y, clip_norm)
        without = clipped(model, x[1:], y[1:], clip_norm)
        distance = torch.stack([(with_it[p] - without[p]).norm() for p in without]).norm()
        assert float(distance) <= clip_norm * (1 + 1e-5)


@pytest.mark.parametrize("name", list(SHAPES))
def test_nothing_stays_on_the_model(name: str) -> None:
    x, y = records(name)
    model = make(name)
    before = {key: set(vars(layer)) for key, layer in model.named_modules()}
    marks = {key: set(vars(p)) for key, p in model.named_parameters()}
    clipped(model, x, y, 1.0)
    assert not any(layer._forward_hooks for layer in model.modules())
    assert not any(layer._backward_hooks for layer in model.modules())
    assert before == {key: set(vars(layer)) for key, layer in model.named_modules()}
    assert marks == {key: set(vars(p)) for key, p in model.named_parameters()}
    assert all(p.grad is None for p in model.parameters())


def test_hooks_come_off_when_the_block_fails() -> None:
    model = make("cnn")
    with pytest.raises(RuntimeError, match="stop"), watched(model):
        raise RuntimeError("stop")
    assert not any(layer._forward_hooks for layer in model.modules())


class ChangesItsInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(x + 0)
        y = self.layer(x)
        x.add_(1)
        logits: torch.Tensor = self.head(x + y)
        return logits


class MergesRecords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(1, 1), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.layer(x.reshape(-1, 1)).reshape(x.shape))
        return logits


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(5, 5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(x, x)
        return logits


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (ChangesItsInput(), "changed in place"),
        (MergesRecords(), "batch dimension first"),
        (TwoInputs(), "take one tensor"),
        (nn.Flatten(), "no layer with parameters"),
    ],
    ids=["in place", "merged", "two inputs", "no parameters"],
)
def test_a_layer_that_hides_its_gradients_is_refused(model: nn.Module, words: str) -> None:
    x = torch.rand(4, 5, requires_grad=True)
    with pytest.raises(ModelError, match=words):
        clipped(model, x, torch.zeros(4, dtype=torch.int64), 1.0)
