"""Thin adaptor around Flower's strategies: they average, everything else is ours.

Flower's strategies would also sample nodes (from a global random state), wait for them without
limit and let a reply's own weight decide its vote. So they get a cohort that is already chosen
and replies that have already passed `calyx.server.aggregation.reply_validation`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from flwr.app import Message
from flwr.serverapp.strategy import (
    FedAdam,
    FedAvg,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
)
from flwr.serverapp.strategy.fedopt import FedOpt

from calyx.server.aggregation.reply_validation import Update
from calyx.shared.config.schema import FederationConfig
from calyx.shared.errors import CheckpointError
from calyx.shared.protocol.arrays import NDArray, Weights
from calyx.shared.protocol.messages import ARRAYS, WEIGHT_KEY


def make_strategy(config: FederationConfig) -> FedAvg:
    """Build the configured Flower strategy."""
    match config.strategy:
        case "fedavg":
            strategy = FedAvg()
        case "fedprox":
            strategy = FedProx(proximal_mu=config.proximal_mu)
        case "fedadam":
            strategy = FedAdam(eta=config.server_learning_rate)
        case "fedyogi":
            strategy = FedYogi(eta=config.server_learning_rate)
        case "fedmedian":
            strategy = FedMedian()
        case "trimmed_mean":
            strategy = FedTrimmedAvg(beta=config.trim_fraction)
        case "krum":
            strategy = Krum(num_malicious_nodes=config.malicious_clients)
        case "multikrum":
            strategy = MultiKrum(
                num_malicious_nodes=config.malicious_clients,
                num_nodes_to_select=config.selected_clients,
            )
    # The names under which our messages carry what Flower aggregates.
    strategy.weighted_by_key = WEIGHT_KEY
    strategy.arrayrecord_key = ARRAYS
    return strategy


class Strategy:
    """One strategy over the rounds of one run, with its state open to checkpoints."""

    def __init__(self, config: FederationConfig) -> None:
        self._strategy, self._rate = make_strategy(config), config.server_learning_rate
        self.proximal_mu = config.proximal_mu if config.strategy == "fedprox" else 0.0

    @property
    def is_adaptive(self) -> bool:
        """Whether the strategy adapts its steps to the updates: FedAdam, FedYogi."""
        return isinstance(self._strategy, FedOpt)

    def aggregate(
        self,
        server_round: int,
        current: Weights,
        updates: Sequence[Update],
        factor: float = 1.0,
    ) -> tuple[Weights, dict[str, float]]:
        """Combine updates, in the order given, into the next global model.

        The step size of FedAdam and FedYogi is multiplied by `factor`; others have none.

        Returns:
            The new weights, with the names, shapes and dtypes of `current` (FedAdam and FedYogi
            compute in float64), and the averaged open metrics.
        """
        if isinstance(self._strategy, FedOpt):
            self._strategy.current_arrays = dict(current)
            self._strategy.eta = self._rate * factor
        replies = [_as_message(update) for update in updates]
        arrays, metrics = self._strategy.aggregate_train(server_round, replies)
        if arrays is None:
            return current, {}
        combined = {
            name: arrays[name].numpy().astype(old.dtype).reshape(old.shape)
            for name, old in current.items()
        }
        averaged = {
            key: float(value)
            for key, value in (metrics or {}).items()
            if isinstance(value, int | float)
        }
        return combined, averaged

    def state(self) -> dict[str, NDArray]:
        """Server-side optimiser state; empty for strategies without any."""
        if not isinstance(self._strategy, FedOpt):
            return {}
        moments = {"m": self._strategy.m_t, "v": self._strategy.v_t}
        return {
            f"{kind}.{name}": np.asarray(value)
            for kind, arrays in moments.items()
            for name, value in (arrays or {}).items()
        }

    def restore(self, state: Mapping[str, NDArray]) -> None:
        """Inverse of `state`."""
        if not state:
            return
        if not isinstance(self._strategy, FedOpt):
            raise CheckpointError(
                "the checkpoint holds optimiser state that this strategy does not use",
                hint="resume with the same settings",
            )
        self._strategy.m_t = _with_prefix(state, "m.")
        self._strategy.v_t = _with_prefix(state, "v.")


def _with_prefix(state: Mapping[str, NDArray], prefix: str) -> dict[str, NDArray]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _as_message(update: Update) -> Message:
    return Message(update.to_content(), dst_node_id=0, message_type="train")
