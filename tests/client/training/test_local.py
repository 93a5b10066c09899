from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from calyx.client.training.local import train_locally
from calyx.client.training.step import TrainingLog
from calyx.shared.config import Config
from calyx.shared.config.schema import ModelConfig, TrainingConfig
from calyx.shared.data import Dataset
from calyx.shared.errors import ModelError, PrivacyError
from calyx.shared.models import build_model
from calyx.shared.privacy.noise import SeededNoise, seeded_key
from calyx.shared.privacy.plan import PrivacyPlan, make_plan
from calyx.shared.record_spec import RecordSpec
from calyx.shared.target import Classes
from calyx.shared.tasks.classification import classification


@pytest.fixture
def data() -> Dataset:
    generator = np.random.default_rng(0)
    labels = np.arange(50) % 3
    features = generator.normal(size=(50, 5)) + 2 * np.eye(5)[labels]
    return Dataset(features.astype(np.float32), labels.astype(np.int64), 3)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def plan_without_privacy(records: int = 50, steps: int = 4, batch_size: int = 16) -> PrivacyPlan:
    config = Config.model_validate(
        {
            "privacy": {"noise": "none"},
            "training": {"local_steps": steps, "batch_size": batch_size},
        }
    )
    return make_plan(config, records)


def train(
    model: nn.Module,
    data: Dataset,
    plan: PrivacyPlan,
    *,
    mu: float = 0.0,
    seed: int = 1,
    config: TrainingConfig | None = None,
) -> TrainingLog:
    noise = SeededNoise(seeded_key("noise", seed))
    config = config or TrainingConfig(learning_rate=0.1, batch_size=16)
    task = classification(Classes(data.classes))
    return train_locally(
        model, data, task, config, plan, proximal_mu=mu, noise=noise, order_seed=seed
    )


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def test_training_lowers_the_loss(model: nn.Module, data: Dataset) -> None:
    first = train(model, data, plan_without_privacy(steps=1))
    last = train(model, data, plan_without_privacy(steps=100))
    assert last.last_loss < 0.5 * first.last_loss


def test_each_pass_sees_every_record_once_in_a_shuffled_order(data: Dataset) -> None:
    seen: list[list[float]] = []

    class Watch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x[:, 0].tolist())
            logits: torch.Tensor = self.layer(x)
            return logits

    log = train(Watch(), data, plan_without_privacy(steps=7, batch_size=15))
    order = [value for batch in seen for value in batch]
    everything = sorted(data.features[:, 0].tolist())
    assert log.batch_sizes == (15,) * 7
    assert sorted(order[:50]) == sorted(order[50:100]) == everything
    assert order[:50] != data.features[:, 0].tolist()
    assert order[:50] != order[50:100]


@pytest.mark.parametrize("name", ["cnn", "lstm", "attention"])
def test_equal_inputs_give_bit_identical_weights(name: str) -> None:
    shape = (1, 8, 8) if name == "cnn" else (8, 8)
    generator = np.random.default_rng(0)
    records = Dataset(
        generator.random((40, *shape), dtype=np.float32), generator.integers(0, 10, 40), 10
    )
    results = []
    for seed in (1, 1, 2):
        model = build_model(
            ModelConfig(name=name, hidden=16), RecordSpec.floats(shape, Classes(10)), seed=0
        )
        torch.rand(7)
        train(model, records, plan_without_privacy(records=40), seed=seed)
        results.append(weights(model))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_dropout_follows_the_seed_and_leaves_the_global_random_state_alone(data: Dataset) -> None:
    results = []
    state = torch.get_rng_state()
    for seed in (1, 1, 2):
        model = nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 3))
        nn.init.ones_(model[1].weight)
        nn.init.zeros_(model[1].bias)
        torch.set_rng_state(state)
        # One full batch, so that dropout is the only thing that the seed can change.
        train(model, data, plan_without_privacy(steps=1, batch_size=50), seed=seed)
        assert torch.equal(state, torch.get_rng_state())
        results.append(weights(model))
    assert torch.equal(results[0], results[1])
    assert float((results[0] - results[2]).abs().max()) > 1e-3


def test_fedprox_adds_the_gradient_of_its_term(model: nn.Module, data: Dataset) -> None:
    start, mu, rate = weights(model), 0.7, 0.1
    reference = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    reference.load_state_dict(model.state_dict())
    optimizer = torch.optim.SGD(reference.parameters(), lr=rate)
    x, y = torch.from_numpy(data.features), torch.from_numpy(data.labels)
    for _ in range(3):
        flat = torch.cat([p.flatten() for p in reference.parameters()])
        loss = nn.functional.cross_entropy(reference(x), y) + mu / 2 * (flat - start).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    full_batches = plan_without_privacy(steps=3, batch_size=50)
    train(model, data, full_batches, mu=mu)
    assert torch.allclose(weights(model), weights(reference), atol=1e-6)
    assert float((weights(model) - start).norm()) > 0.01


def test_a_batch_is_never_larger_than_the_data(model: nn.Module, data: Dataset) -> None:
    log = train(model, data.subset(np.arange(5)), plan_without_privacy(records=50, steps=3))
    assert log.batch_sizes == (5, 5, 5)


def test_client_level_privacy_trains_plainly_and_is_protected_later(data: Dataset) -> None:
    # The same weights as without privacy: noise belongs to the update, see
    # calyx.client.training.client_level.
    plain = plan_without_privacy()
    client_level = replace(plain, unit="client", noise="local", noise_multiplier=5.0)
    results = []
    for plan in (plain, client_level):
        torch.manual_seed(0)
        model = nn.Linear(5, 3)
        train(model, data, plan)
        results.append(weights(model))
    assert torch.equal(*results)


def test_the_mode_of_the_model_is_restored_and_no_gradient_stays(
    model: nn.Module, data: Dataset
) -> None:
    model.eval()
    train(model, data, plan_without_privacy())
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_missing_device_is_refused_with_the_way_out(model: nn.Module, data: Dataset) -> None:
    before = weights(model)
    with pytest.raises(ModelError, match=r"set training\.device=cpu"):
        train(model, data, plan_without_privacy(), config=TrainingConfig(device="cuda"))
    assert torch.equal(before, weights(model))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_a_cuda_device_ends_near_the_cpu_result(data: Dataset) -> None:
    results = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = nn.Linear(5, 3)
        config = TrainingConfig.model_validate({"device": device, "batch_size": 16})
        train(model, data, plan_without_privacy(), config=config)
        assert all(p.device.type == "cpu" for p in model.parameters())
        results.append(weights(model))
    assert torch.allclose(*results, atol=1e-4)


@pytest.mark.parametrize("noise", ["central", "distributed"])
def test_noise_that_is_not_added_here_is_refused_for_records(
    noise: str, model: nn.Module, data: Dataset
) -> None:
    plan = replace(plan_without_privacy(), noise=noise, noise_multiplier=1.0)
    before = weights(model)
    with pytest.raises(PrivacyError, match=noise):
        train(model, data, plan)
    assert torch.equal(before, weights(model))


def test_the_log_tells_steps_sizes_and_the_last_loss(model: nn.Module, data: Dataset) -> None:
    expected = nn.functional.cross_entropy(
        model(torch.from_numpy(data.features)), torch.from_numpy(data.labels)
    )
    log = train(model, data, plan_without_privacy(steps=1, batch_size=50))
    assert (log.steps, log.batch_sizes) == (1, (50,))
    assert math.isclose(log.last_loss, float(expected.detach()), rel_tol=1e-5)
