from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from calyx.shared.config.schema import TrainingConfig
from calyx.shared.data import Dataset
from calyx.shared.privacy.noise import SeededNoise, seeded_key
from tests.client.training.private_training import (
    CLIP,
    FALSE_ALARM,
    RATE,
    SHAPES,
    NoNoise,
    clipped_sum_by_hand,
    flat,
    make_data,
    make_model,
    make_private_plan,
    train,
)


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
    data = Dataset(np.zeros_like(data.features), data.labels, 3)
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
        """Coins as prescribed, and real noise."""

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
    poisoned = Dataset(features, clean.labels, 3)
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


def test_learning_gets_through_the_noise() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(300) % 3
    features = generator.normal(size=(300, 4)) + 3 * np.eye(4)[labels]
    data = Dataset(features.astype(np.float32), labels.astype(np.int64), 3)
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
