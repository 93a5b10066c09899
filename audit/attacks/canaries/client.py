"""Clients as canaries: how far does the model move in the direction of one client's update?

For ``unit = client`` a canary is a whole client, which sends a direction of its own in every round
in place of what it would learn (Andrew et al. 2023). The run is repeated with all clients as
canaries, through their own clipping, noise and sealing or the server's, until there are enough of
them. The evidence is the cosine of each direction with the movement of the global model from first
to last round, which every party gets.

Since nothing is learned, all that a round releases besides noise is known: the canaries of the
clients that answered. In the first repetition they are subtracted, and what remains is kept
(`calyx.audit.attacks.noise.remainders`). Later repetitions draw the same noise, from the same seed.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray
from torch import nn

from calyx.audit.attacks.noise.remainders import Remainders
from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.progress import Progress
from calyx.audit.replay.replay import Observers, replayed_run
from calyx.client.instrumentation.canaries import directions
from calyx.server.state.checkpoint import load_latest
from calyx.shared.config import Config
from calyx.shared.config.load import digest
from calyx.shared.data import load_split
from calyx.shared.errors import RunError, UsageError
from calyx.shared.models import build_model
from calyx.shared.models.vector import dimension, to_vector, trainable_names
from calyx.shared.protocol.arrays import Weights, read_record, weights_of
from calyx.shared.protocol.authority.interface import Released, ReleaseRequest
from calyx.shared.protocol.messages import TrainInstruction, read_arrays
from calyx.shared.protocol.sealed.sum_coding import SumCoding
from calyx.simulations.engines.grid import FIRST_CLIENT_NODE_ID
from calyx.simulations.run_folder import RunFolder

NAME, REMAINDERS = "client-canaries", "client-canaries-remainders"
DEFAULT_CANARIES = 30


def run(
    folder: RunFolder,
    store: EvidenceStore,
    progress: Progress,
    *,
    canaries: int = DEFAULT_CANARIES,
    workers: int | None = None,
) -> None:
    """Repeat the run with canaries for clients and put the cosines into evidence.

    Args:
        folder: the run.
        store: its evidence.
        progress: receives what is being done and the share of it that is done.
        canaries: the least number of them.
        workers: client processes; None for one per core.

    Raises:
        UsageError: the guarantee is not one for clients in a sum.
    """
    config = folder.stored_config()
    refuse_unfit(config)
    split = load_split(config.data, config.seed)
    model = build_model(config.model, split.test.spec, split.test.classes, config.seed)
    names, size = trainable_names(model), dimension(model)
    start = to_vector(weights_of(model), names)
    clients, seed = config.federation.clients, secrets.randbits(63)
    repeats = -(-canaries // clients)
    places = np.random.default_rng(seed).permutation(size)[: repeats * clients]
    rounds, total = config.training.rounds, repeats * config.training.rounds
    cosines: list[NDArray[np.float64]] = []
    with tempfile.TemporaryDirectory(prefix="calyx-canaries-") as name:
        for repeat, own in enumerate(places.reshape(repeats, clients)):
            path = Path(name) / f"canaries-{repeat}.npz"
            one_each = {f"client-{k}": np.array([place]) for k, place in enumerate(own)}
            np.savez(path, allow_pickle=False, seed=np.int64(seed), **one_each)

            def on_round(number: int, done: int = repeat * rounds) -> None:
                progress("canaries", (done + number) / total)

            watcher = ReleaseWatcher(config, model, seed, own)
            observers = Observers(
                tap=watcher,
                on_release=watcher.on_release,
                client_settings={"canaries": str(path)},
                on_round=on_round,
            )
            with replayed_run(config, observers, workers=workers) as repeated:
                last = _last_weights(repeated, config)
                moved = to_vector(last, names) - start
            if not repeat:
                watcher.finish(last)
                if len(watcher.remainders):
                    store.put_arrays(REMAINDERS, watcher.remainders.arrays())
            along = directions(seed, size).forward(moved)[own]
            cosines.append(along / np.linalg.norm(moved))
    store.put_json(
        f"{NAME}-run",
        {
            "dimension": size,
            "repeats": repeats,
            "clients": clients,
            "rounds": len(folder.told().rounds),
        },
    )
    store.put_arrays(NAME, {"cosines": np.concatenate(cosines)})


class ReleaseWatcher:
    """Sees each round's released sum or, at the server, how far it moved the model.

    Args:
        config: the run's configuration.
        model: a model with the run's architecture.
        seed: from which the directions are drawn.
        places: row of the rotation that each client sends, int64 (clients,).
    """

    def __init__(
        self, config: Config, model: nn.Module, seed: int, places: NDArray[np.int64]
    ) -> None:
        self._config, self._seed, self._places = config, seed, places
        self._like, self._names = weights_of(model), trainable_names(model)
        sizes = [self._like[name].size for name in self._names]
        self.remainders = Remainders(config.training.rounds, sizes)
        self._instruction: TrainInstruction | None = None
        self._weights: Weights = {}
        self._answered: set[int] = set()

    def sent(self, message: Message) -> None:
        """See `calyx.simulations.engines.grid.Tap`."""
        if message.metadata.message_type != "train":
            return
        instruction, before = TrainInstruction.from_content(message.content), self._instruction
        if before is None or instruction.round != before.round:
            weights = read_record(read_arrays(message.content), like=self._like)
            self.finish(weights)
            self._instruction, self._weights, self._answered = instruction, weights, set()

    def received(self, message: Message) -> None:
        """See `calyx.simulations.engines.grid.Tap`."""
        is_reply = message.metadata.message_type == "train" and not message.has_error()
        if is_reply and message.content.array_records:
            self._answered.add(message.metadata.src_node_id - FIRST_CLIENT_NODE_ID)

    def finish(self, weights: Weights) -> None:
        """The model after the previous round: with central noise its movement is released.

        Only plain averaging says how far a released sum moves the model.
        """
        instruction, config = self._instruction, self._config
        is_averaged = config.federation.strategy in ("fedavg", "fedprox")
        if instruction is None or config.privacy.noise != "central" or not is_averaged:
            return
        plan = instruction.plan
        moved = to_vector(weights, self._names) - to_vector(self._weights, self._names)
        remainder = moved * config.cohort_size - plan.clip_norm * self._canaries(self._answered)
        deviation = plan.noise_multiplier * plan.clip_norm
        self.remainders.add(-1, instruction.round, remainder / deviation)

    def on_release(self, request: ReleaseRequest, _: object, released: Released) -> None:
        """See `calyx.audit.replay.replay.OnRelease`."""
        plan = None if self._instruction is None else self._instruction.plan
        mechanism = None if plan is None else plan.mechanism
        if plan is None or mechanism is None:
            raise RunError("a sum was released whose plan has no client noise")
        clients = {int(receipt.contributor) for receipt in request.receipts}
        canaries = plan.clip_norm * self._canaries(clients)
        coding = SumCoding.of(self._config, plan, len(canaries), request.round)
        rotation, step = coding.rotation, coding.grid.step
        values = coding.grid.restored(np.asarray(released.values, dtype=np.int64))
        variance = mechanism.share_variance * len(clients)
        remainder = (values - rotation.forward(canaries)) / (np.sqrt(variance) * step)
        self.remainders.add(
            -1,
            request.round,
            remainder,
            kurtosis=1 / variance,
            by_tensor=rotation.inverse(remainder),
        )

    def _canaries(self, clients: Collection[int]) -> NDArray[np.float64]:
        """Sum of the directions of these clients; (dimension,)."""
        size = sum(self._like[name].size for name in self._names)
        by_place = np.zeros(size)
        by_place[self._places[sorted(clients)]] = 1.0
        return directions(self._seed, size).inverse(by_place)


def refuse_unfit(config: Config) -> None:
    """Refuse a run whose clients are not protected within a sum.

    Raises:
        UsageError: with the reason.
    """
    privacy = config.privacy
    if privacy.unit != "client" or privacy.noise not in ("distributed", "central"):
        raise UsageError(
            "canary clients need unit = client with distributed or central noise; this run has "
            f"unit {privacy.unit} and noise {privacy.noise}",
            hint="leave the attack out with --skip canaries",
        )


def _last_weights(folder: RunFolder, config: Config) -> dict[str, NDArray[np.generic]]:
    """The global model after the last round; the kept model may be an average of several."""
    checkpoint = load_latest(folder.path / "checkpoints", digest(config))
    if checkpoint is None or checkpoint.round < config.training.rounds:
        raise RunError("a repeated run with canary clients did not reach its last round")
    return checkpoint.weights
