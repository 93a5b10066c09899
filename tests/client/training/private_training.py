"""A private training step, and the same by hand."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from calyx.client.training.local import train_locally
from calyx.client.training.step import TrainingLog
from calyx.shared.config.schema import ModelConfig, TrainingConfig
from calyx.shared.data import Dataset
from calyx.shared.models import build_model
from calyx.shared.privacy.noise import NoiseSource
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.record_spec import RecordSpec
from calyx.shared.target import Classes
from calyx.shared.tasks.classification import classification

# Statistical tests here use seeded noise, so they cannot fail by chance from run to run; the
# seeds were not chosen. Under another seed each would fail with this probability.
FALSE_ALARM = 1e-3
CLIP = 0.4
RATE = 0.1
TASK = classification(Classes(3))


class NoNoise:
    """Coins that fall as prescribed and no Gaussian noise, to see what the noise would hide."""

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
    return Dataset(features, (np.arange(n) % 3).astype(np.int64), 3)


def make_model(name: str = "small") -> nn.Module:
    torch.manual_seed(0)
    if name == "small":
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    config = ModelConfig(name=name, hidden=8, heads=2, layers=2 if name == "lstm" else 1)
    return build_model(config, RecordSpec.floats(SHAPES[name], Classes(3)), seed=0)


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
    return train_locally(model, data, TASK, config, plan, proximal_mu=mu, noise=noise, order_seed=1)


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
