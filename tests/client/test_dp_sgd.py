from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import nn

from client.training import TrainingLog, train_locally
from shared.config.schema import ModelConfig, TrainingConfig
from shared.data import Dataset
from shared.errors import ModelError, PrivacyError
from shared.models import build_model
from shared.privacy.noise import NoiseSource, SeededNoise, seeded_key
from shared.privacy.plan import PrivacyPlan

# Statistical tests here use seeded noise, so they cannot fail by chance from run to run; the
# seeds were not chosen. Under another seed each would fail with this probability.
FALSE_ALARM = 1e-3

CLIP = 0.4
RATE = 0.1


class NoNoise:
    """Coins that fall as told and no Gaussian noise, to see what the noise would hide."""

    kind = "seeded"

    def __init__(self, *batches: list[int]) -> None:
        self._batches = list(batches)
        self.asked: list[tuple[tuple[int, ...], float]] = []

    def gaussian(self, shape: tuple[int, ...], std: float) -> torch.Tensor:
        self.asked.append((shape, std))
        return torch.zeros(shape)

    def coins(self, n: int, probability: float) -> NDArray[np.bool_]:
        return np.isin(np.arange(n), self._batches.pop(0))

    @property
    def generator(self) -> np.random.Generator:
        return np.random.default_rng(0)


def make_private_plan(
    records: int, batch: float, steps: int = 1, multiplier: float = 1.0
) -> PrivacyPlan:
    return PrivacyPlan(
        unit="record",
        noise="local",
        relation="one record replaced by a null record",
        clip_norm=CLIP,
        noise_multiplier=multiplier,
        sensitivity_factor=1.0,
        sampling="full" if batch == records else "poisson",
        sampling_rate=batch / records,
        expected_batch_size=float(batch),
        steps_per_round=steps,
        rounds=1,
        declared_records=records,
        target_epsilon=8.0,
        delta=1e-4,
    )


def make_data(shape: tuple[int, ...], n: int = 12) -> Dataset:
    generator = np.random.default_rng(0)
    # Of different sizes, so that some gradients are clipped and some are not.
    sizes = np.logspace(-2, 0.5, n).reshape(-1, *[1] * len(shape))
    features = (generator.random((n, *shape)) * sizes).astype(np.float32)
    return Dataset(features, (np.arange(n) % 3).astype(np.int64), classes=3)


def make_model(name: str = "small") -> nn.Module:
    torch.manual_seed(0)
    if name == "small":
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    config = ModelConfig(name=name, hidden=8, heads=2, layers=2 if name == "lstm" else 1)
    return build_model(config, SHAPES[name], 3, seed=0)


SHAPES: dict[str, tuple[int, ...]] = {
    "small": (4,),
    "cnn": (1, 8, 8),
    "lstm": (6, 5),
    "attention": (6, 5),
}


def train(
    model: nn.Module,
    data: Dataset,
    plan: PrivacyPlan,
    noise: NoiseSource,
    *,
    mu: float = 0.0,
    config: TrainingConfig | None = None,
) -> TrainingLog:
    config = config or TrainingConfig(learning_rate=RATE)
    return train_locally(model, data, config, plan, proximal_mu=mu, noise=noise, order_seed=1)


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def clipped_sum_by_hand(model: nn.Module, data: Dataset, indices: list[int]) -> torch.Tensor:
    """Each record's gradient from autograd on its own, clipped over all parameters jointly."""
    total = torch.zeros_like(flat(model))
    for i in indices:
        x, y = torch.from_numpy(data.features[[i]]), torch.from_numpy(data.labels[[i]])
        loss = nn.functional.cross_entropy(model(x), y)
        gradient = torch.cat(
            [g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]
        )
        total += gradient * min(1.0, CLIP / float(gradient.double().norm()))
    return total


@pytest.mark.parametrize("name", list(SHAPES))
def test_a_step_moves_along_the_sum_of_clipped_gradients_over_the_public_divisor(
    name: str,
) -> None:
    model, data = make_model(name), make_data(SHAPES[name])
    before, expected = flat(model), clipped_sum_by_hand(model, data, list(range(12)))
    train(model, data, make_private_plan(records=12, batch=12), NoNoise())
    assert torch.allclose(flat(model), before - RATE * expected / 12, atol=1e-6)


@pytest.mark.parametrize("batch", [[], [3], list(range(11))], ids=["empty", "one", "too many"])
def test_the_divisor_is_the_plans_constant_whatever_the_batch(batch: list[int]) -> None:
    model, data = make_model(), make_data((4,))
    before, expected = flat(model), clipped_sum_by_hand(model, data, batch)
    log = train(model, data, make_private_plan(records=12, batch=5.0), NoNoise(batch))
    assert log.batch_sizes == (len(batch),)
    assert torch.allclose(flat(model), before - RATE * expected / 5, atol=1e-6)


def test_a_batch_of_more_records_than_fit_at_once_gives_one_step_and_one_noise() -> None:
    model, data = make_model(), make_data((4,), n=600)
    before, expected = flat(model), clipped_sum_by_hand(model, data, list(range(600)))
    noise = NoNoise()
    train(model, data, make_private_plan(records=600, batch=600), noise)
    assert torch.allclose(flat(model), before - RATE * expected / 600, atol=1e-6)
    assert len(noise.asked) == len(list(model.parameters()))


@pytest.mark.parametrize("batch", [[], [0, 5]], ids=["empty", "two records"])
def test_every_parameter_gets_noise_of_multiplier_times_clip_norm(batch: list[int]) -> None:
    model, noise = make_model(), NoNoise(batch)
    train(model, make_data((4,)), make_private_plan(12, 4, multiplier=1.7), noise)
    assert noise.asked == [(tuple(p.shape), 1.7 * CLIP) for p in model.parameters()]


@pytest.mark.parametrize("rate", [1e-6, 0.4], ids=["empty batches", "some records"])
def test_the_measured_noise_has_the_plans_deviation(rate: float) -> None:
    torch.manual_seed(0)
    model, data, steps = nn.Linear(4, 500), make_data((4,)), 20
    # Zero features and a bias that is frozen: the gradient is zero, the step is all noise.
    model.bias.requires_grad_(False)
    data = Dataset(np.zeros_like(data.features), data.labels, classes=3)
    plan = replace(make_private_plan(12, 5, steps, multiplier=1.3), sampling_rate=rate)
    moves: list[torch.Tensor] = []
    for step in range(steps):
        before = model.weight.detach().clone()
        train(model, data, replace(plan, steps_per_round=1), SeededNoise(seeded_key(step)))
        moves.append((model.weight.detach() - before).flatten())
    std = RATE * 1.3 * CLIP / 5
    z = torch.cat(moves).double().numpy() / std
    tail = stats.chi2.cdf((z**2).sum(), len(z))
    assert 2 * min(tail, 1 - tail) > FALSE_ALARM
    assert stats.kstest(z, "norm").pvalue > FALSE_ALARM


def test_batches_are_poisson_sampled() -> None:
    n, rate, steps = 40, 0.2, 600
    plan = replace(make_private_plan(n, 8, steps), sampling_rate=rate)
    log = train(make_model(), make_data((4,), n), plan, SeededNoise(seeded_key("batches")))
    sizes = np.array(log.batch_sizes)
    assert len(sizes) == log.steps == steps
    assert stats.binomtest(int(sizes.sum()), n * steps, rate).pvalue > FALSE_ALARM
    # Binomial sizes; batches of a fixed size would have no spread at all.
    spread = ((sizes - n * rate) ** 2).sum() / (n * rate * (1 - rate))
    tail = stats.chi2.cdf(spread, steps)
    assert 2 * min(tail, 1 - tail) > FALSE_ALARM


def test_full_sampling_takes_every_record_in_every_step() -> None:
    log = train(make_model(), make_data((4,)), make_private_plan(12, 12, steps=3), NoNoise())
    assert log.batch_sizes == (12, 12, 12)


def test_steps_compose_and_the_optimiser_sees_only_noisy_gradients() -> None:
    model, reference, data = make_model(), make_model(), make_data((4,))
    config = TrainingConfig(learning_rate=0.01, optimizer="adam", weight_decay=0.1)
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.01, weight_decay=0.1)
    key, batches = seeded_key("steps"), [[1, 2, 3], [], [0, 11]]

    class Told(NoNoise):
        """Coins as told, and real noise."""

        def __init__(self) -> None:
            super().__init__(*batches)
            self._noise = SeededNoise(key)

        def gaussian(self, shape: tuple[int, ...], std: float) -> torch.Tensor:
            return self._noise.gaussian(shape, std)

    noise = SeededNoise(key)
    for batch in batches:
        total = clipped_sum_by_hand(reference, data, batch)
        sizes = [p.numel() for p in reference.parameters()]
        for p, part in zip(reference.parameters(), total.split(sizes), strict=True):
            noisy = part.view(p.shape).double() + noise.gaussian(tuple(p.shape), CLIP)
            p.grad = noisy.float() / 4
        optimizer.step()
    train(model, data, make_private_plan(12, 4, steps=3), Told(), config=config)
    assert torch.allclose(flat(model), flat(reference), atol=1e-6)


def test_fedprox_is_added_after_the_noise_and_is_not_clipped() -> None:
    model, data, mu = make_model(), make_data((4,)), 3.0
    start = flat(model)
    reference = make_model()
    for batch in ([0, 1, 2], [3, 4]):
        total = clipped_sum_by_hand(reference, data, batch) / 4
        moved = flat(reference) - RATE * (total + mu * (flat(reference) - start))
        nn.utils.vector_to_parameters(moved, reference.parameters())
    noise = NoNoise([0, 1, 2], [3, 4])
    train(model, data, make_private_plan(12, 4, steps=2), noise, mu=mu)
    assert torch.allclose(flat(model), flat(reference), atol=1e-6)


@pytest.mark.parametrize("name", list(SHAPES))
def test_a_record_without_a_finite_gradient_counts_as_zero(name: str) -> None:
    clean = make_data(SHAPES[name])
    features = clean.features.copy()
    features[5] = np.finfo(np.float32).max
    poisoned = Dataset(features, clean.labels, classes=3)
    model, others = make_model(name), [i for i in range(12) if i != 5]
    before, expected = flat(model), clipped_sum_by_hand(model, clean, others)
    train(model, poisoned, make_private_plan(12, 12), NoNoise())
    after = flat(model)
    assert bool(torch.isfinite(after).all())
    # Such a record may still have a finite gradient; it then counts with at most the clip norm.
    assert float((after - (before - RATE * expected / 12)).norm()) <= RATE * CLIP / 12 * 1.001


def test_equal_keys_give_bit_identical_weights() -> None:
    results = []
    for key in ("a", "a", "b"):
        model = make_model("cnn")
        plan = make_private_plan(12, 4, steps=3)
        train(model, make_data((1, 8, 8)), plan, SeededNoise(seeded_key(key)))
        results.append(flat(model))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("name", list(SHAPES))
def test_names_shapes_and_mode_stay_and_nothing_remains_attached(name: str) -> None:
    model = make_model(name)
    model.eval()
    layers = {key: set(vars(layer)) for key, layer in model.named_modules()}
    shapes = {key: (tuple(t.shape), t.dtype) for key, t in model.state_dict().items()}
    plan = make_private_plan(12, 4, steps=2)
    train(model, make_data(SHAPES[name]), plan, SeededNoise(seeded_key(0)))
    assert shapes == {key: (tuple(t.shape), t.dtype) for key, t in model.state_dict().items()}
    assert layers == {key: set(vars(layer)) for key, layer in model.named_modules()}
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())
    assert not model.training
    for p in model.parameters():
        assert p.grad is None
        assert vars(p) == {}
        assert not p._backward_hooks


class Untouchable(Dataset):
    """Records that may not be looked at; only their shape is public."""

    def __init__(self) -> None:
        object.__setattr__(self, "classes", 3)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (4,)

    def __getattribute__(self, name: str) -> object:
        if name in ("features", "labels"):
            raise AssertionError("a record was touched")
        return super().__getattribute__(name)


class MeanOfTheBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(x - x.mean(dim=0))
        return logits


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), "BatchNorm1d"),
        (MeanOfTheBatch, "other records"),
        (lambda: nn.Linear(4, 3).requires_grad_(False), "no trainable"),
    ],
    ids=["batch norm", "batch mean", "frozen"],
)
def test_a_model_that_cannot_be_private_is_refused_before_a_record_is_touched(
    make: Callable[[], nn.Module], words: str
) -> None:
    model = make()
    before = flat(model)
    with pytest.raises(ModelError, match=words):
        train(model, Untouchable(), make_private_plan(12, 4), NoNoise([0]))
    assert torch.equal(before, flat(model))


@pytest.mark.parametrize("multiplier", [0.0, -1.0, math.nan])
def test_a_private_plan_without_noise_is_refused(multiplier: float) -> None:
    model, plan = make_model(), make_private_plan(12, 4, multiplier=multiplier)
    before = flat(model)
    with pytest.raises(PrivacyError, match="noise multiplier above 0"):
        train(model, Untouchable(), plan, NoNoise([0]))
    assert torch.equal(before, flat(model))


def test_an_error_in_the_middle_leaves_nothing_attached() -> None:
    model = make_model()
    with pytest.raises(IndexError):
        # The second step finds no coins.
        train(model, make_data((4,)), make_private_plan(12, 4, steps=2), NoNoise([0]))
    assert not any(m._forward_hooks for m in model.modules())
    assert all(p.grad is None and vars(p) == {} for p in model.parameters())


def test_learning_gets_through_the_noise() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(300) % 3
    features = generator.normal(size=(300, 4)) + 3 * np.eye(4)[labels]
    data = Dataset(features.astype(np.float32), labels.astype(np.int64), classes=3)
    model, plan = make_model(), make_private_plan(300, 60, steps=60)
    train(
        model,
        data,
        plan,
        SeededNoise(seeded_key("learn")),
        config=TrainingConfig(learning_rate=1.0),
    )
    guessed = model(torch.from_numpy(data.features)).argmax(dim=1).numpy()
    assert (guessed == labels).mean() > 0.9
