"""Every strategy averages what it must, in the model's own types, and its state survives."""

from __future__ import annotations

import numpy as np
import pytest

from calyx.server.aggregation.reply_validation import Update
from calyx.server.aggregation.strategy import Strategy
from calyx.shared.config.schema import FederationConfig
from calyx.shared.errors import CheckpointError
from calyx.shared.protocol.arrays import Weights

STRATEGIES = (
    "fedavg", "fedprox", "fedadam", "fedyogi", "fedmedian", "trimmed_mean", "krum", "multikrum",
)  # fmt: skip


def updates(*values: float, records: int = 100) -> list[Update]:
    return [
        Update(str(i), {"w": np.full(3, v, np.float32), "s": np.array(v, np.float32)}, records, {})
        for i, v in enumerate(values)
    ]


@pytest.fixture
def zero() -> Weights:
    return {"w": np.zeros(3, np.float32), "s": np.array(0.0, np.float32)}


@pytest.mark.parametrize("name", STRATEGIES)
def test_result_has_the_models_names_shapes_and_types(name: str, zero: Weights) -> None:
    strategy = Strategy(FederationConfig(strategy=name))
    combined, _ = strategy.aggregate(1, zero, updates(1, 2, 3, 4, 5))
    for key, old in zero.items():
        assert combined[key].dtype == old.dtype and combined[key].shape == old.shape
        assert np.isfinite(combined[key]).all()
    assert combined["w"][0] > 0


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_average_is_weighted_by_declared_counts(name: str, zero: Weights) -> None:
    pair = [*updates(1.0, records=300), *updates(5.0, records=100)]
    combined, _ = Strategy(FederationConfig(strategy=name)).aggregate(1, zero, pair)
    assert combined["w"] == pytest.approx(2.0)


@pytest.mark.parametrize("name", ["fedmedian", "trimmed_mean", "krum", "multikrum"])
def test_robust_strategies_withstand_one_liar(name: str, zero: Weights) -> None:
    config = FederationConfig(strategy=name, malicious_clients=1, trim_fraction=0.2)
    combined, _ = Strategy(config).aggregate(1, zero, updates(1.0, 1.1, 0.9, 1.0, 500.0))
    assert combined["w"] == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("name", ["fedadam", "fedyogi"])
def test_server_optimizer_state_survives_a_checkpoint(name: str, zero: Weights) -> None:
    config = FederationConfig(strategy=name)
    straight = Strategy(config)
    first, _ = straight.aggregate(1, zero, updates(1, 2))
    resumed = Strategy(config)
    resumed.restore({k: v.copy() for k, v in straight.state().items()})
    expected, _ = straight.aggregate(2, first, updates(3, 4))
    actual, _ = resumed.aggregate(2, first, updates(3, 4))
    fresh, _ = Strategy(config).aggregate(2, first, updates(3, 4))
    assert actual["w"].tobytes() == expected["w"].tobytes()
    assert fresh["w"].tobytes() != expected["w"].tobytes()


def test_state_of_another_strategy_is_refused() -> None:
    with pytest.raises(CheckpointError):
        Strategy(FederationConfig()).restore({"m.w": np.zeros(3)})


def test_only_fedprox_tells_clients_about_the_proximal_term() -> None:
    assert Strategy(FederationConfig(strategy="fedprox", proximal_mu=0.3)).proximal_mu == 0.3
    assert Strategy(FederationConfig(strategy="fedavg", proximal_mu=0.3)).proximal_mu == 0.0


def test_open_metrics_are_averaged(zero: Weights) -> None:
    pair = [
        Update("0", zero, 100, {"train-loss": 1.0}),
        Update("1", zero, 300, {"train-loss": 3.0}),
    ]
    _, metrics = Strategy(FederationConfig()).aggregate(1, zero, pair)
    assert metrics == {"train-loss": pytest.approx(2.5)}
