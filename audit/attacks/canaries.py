"""Record canaries in the real training path: can an observer tell which of them were in?

m canaries are spread over the clients, and a fair coin decides for each whether it takes part. A
hash of the coins goes into the chain of evidence before the first round. Then the run is repeated
with them (`audit.twin`), through the clients' own clipping, noise and sealing, and what the
observer sees is projected on every canary's direction, round by round:

    x_ti = <c_i, what was released in round t> / C

Two observers are recorded:

* *public*: sees what is released, nothing else: the released sum of every round, or with local
  noise each client's update;
* *informed*: also knows every record but not the coins, and subtracts what the others contributed.
  Differential privacy is a promise against this one; it exists where a round is one step over the
  union of all records.

Projections and coins are the evidence; scores and bounds are made from them (`audit.findings`).

Where nothing is sampled the auditor, who knows coins and records, can also subtract everything but
the noise. What remains of each round is kept as two numbers: its squared norm, which betrays noise
of another size and gradients that were not clipped, and its cosine with the round before, which
betrays noise that was used twice.
"""

from __future__ import annotations

import hashlib
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from audit.evidence import EvidenceStore
from audit.twin import Watching, rounds_of, twin
from client.canaries import directions
from client.dp_sgd import clipped_gradient_sum
from shared.config import Config
from shared.data import Dataset, load_split
from shared.encryption.quantise import Grid
from shared.errors import UsageError
from shared.models import build_model
from shared.models.vector import dimension, to_vector, trainable_names
from shared.privacy.noise import SeededNoise, seeded_key
from shared.privacy.plan import PrivacyPlan
from shared.privacy.rotation import Rotation
from shared.protocol.arrays import load_weights, read_record, weights_of
from shared.protocol.authority_client import Released, ReleaseRequest
from shared.protocol.messages import TrainInstruction, read_arrays
from shared.protocol.sealing import rotation_seed
from simulations.run_folder import RunFolder

Progress = Callable[[str, float], None]
Floats = NDArray[np.float64]

COMMITMENT, NAME = "canaries-commitment", "canaries"
DEFAULT_CANARIES = 1000


def run(
    folder: RunFolder,
    store: EvidenceStore,
    progress: Progress,
    *,
    canaries: int = DEFAULT_CANARIES,
    workers: int | None = None,
) -> None:
    """Repeat the run with canaries and put coins and projections into evidence.

    Args:
        folder: the run.
        store: its evidence.
        progress: told how far it is.
        canaries: m, how many.
        workers: client processes; None for one a core.

    Raises:
        UsageError: the run has no record-level noise of clients, so there is nothing to audit.
    """
    config = folder.stored_config()
    refuse_unfit(config)
    clients = config.federation.clients
    coins = np.frombuffer(secrets.token_bytes(canaries), dtype=np.uint8) & 1
    seed, nonce = secrets.randbits(63), secrets.token_bytes(32)
    store.put_json(
        COMMITMENT,
        {
            "sha256": commitment(coins.astype(np.bool_), nonce),
            "canaries": canaries,
            "direction_seed": seed,
            "observers": ["public", "informed"] if _is_union(config) else ["public"],
        },
    )
    owner = np.arange(canaries) % clients
    watcher = _Watcher(config, seed, owner, coins.astype(np.bool_))
    with tempfile.TemporaryDirectory(prefix="calyx-canaries-") as name:
        path = Path(name) / "canaries.npz"
        parts = {f"client-{k}": coins[owner == k].astype(np.bool_) for k in range(clients)}
        np.savez(path, seed=np.int64(seed), **parts)
        total = config.training.rounds
        watching = Watching(
            tap=watcher,
            on_release=watcher.on_release,
            client_settings={"canaries": str(path)},
            on_round=lambda number: progress("canaries", number / total),
        )
        with twin(config, watching, workers=workers) as repeated:
            last = rounds_of(repeated)[-1]
    own = rounds_of(folder)[-1]
    plan = watcher.plan
    store.put_json(
        f"{NAME}-run",
        {
            "accuracy_with_canaries": last["accuracy"],
            "accuracy_without": own["accuracy"],
            "rounds": len(watcher.public),
            "dimension": watcher.dimension,
            "noise_multiplier": plan.noise_multiplier,
            "shares": plan.mechanism.shares if plan.mechanism else 1,
            "contributors": watcher.contributors,
            "sampling_rate": plan.sampling_rate,
            "steps_per_round": plan.steps_per_round,
        },
    )
    arrays = {
        "coins": coins.astype(np.bool_),
        "nonce": np.frombuffer(nonce, dtype=np.uint8),
        "public": np.array(watcher.public),
    }
    if watcher.informed:
        arrays["informed"] = np.array(watcher.informed)
    if watcher.remainder.energies:
        arrays["energies"] = np.array(watcher.remainder.energies)
        arrays["cosines"] = np.array(watcher.remainder.cosines)
    store.put_arrays(NAME, arrays)


def refuse_unfit(config: Config) -> None:
    """Canaries are records with noise of the clients; say why if this run has none.

    Raises:
        UsageError: with the reason.
    """
    privacy = config.privacy
    if privacy.unit != "record" or privacy.noise not in ("local", "distributed"):
        raise UsageError(
            f"record canaries need unit = record with local or distributed noise; this run has "
            f"unit {privacy.unit} and noise {privacy.noise}"
        )
    if privacy.noise == "local" and config.secure_aggregation.scheme != "none":
        raise UsageError(
            "sealed updates with local noise show an observer only sums; audit the same run with "
            "secure_aggregation.scheme = none"
        )


def commitment(coins: NDArray[np.bool_], nonce: bytes) -> str:
    """What is fixed before the first round: SHA-256 over a secret nonce and the coins, hex."""
    return hashlib.sha256(nonce + coins.astype(np.bool_).tobytes()).hexdigest()


def _is_union(config: Config) -> bool:
    return config.privacy.noise == "distributed"


class _Remainder:
    """What remains of the released sums without canaries and records: the noise, if all is well."""

    def __init__(self) -> None:
        self._before: Floats | None = None
        self.energies: list[float] = []
        self.cosines: list[float] = []

    def add(self, remainder: Floats) -> None:
        """One round's remainder in clip norms, rotated as it is when the noise is added."""
        self.energies.append(float(remainder @ remainder))
        if self._before is not None:
            norms = float(np.linalg.norm(remainder) * np.linalg.norm(self._before))
            self.cosines.append(float(remainder @ self._before) / norms if norms else 1.0)
        self._before = remainder


class _Watcher:
    """Stands at the server's boundary and at the released sums; keeps projections only."""

    def __init__(
        self, config: Config, seed: int, owner: NDArray[np.int64], coins: NDArray[np.bool_]
    ) -> None:
        self._config = config
        split = load_split(config.data, config.seed)
        self._train: Dataset = split.train
        self._model = build_model(
            config.model, split.test.input_shape, split.test.classes, config.seed
        )
        self._names = trainable_names(self._model)
        self.dimension = dimension(self._model)
        self._owner = owner
        counts = [int((owner == k).sum()) for k in range(config.federation.clients)]
        self._directions = [
            directions(seed, k, count, self.dimension) for k, count in enumerate(counts)
        ]
        self._canaries = sum(
            (own[coins[owner == k]].sum(axis=0, dtype=np.float64))
            for k, own in enumerate(self._directions)
        )
        self._sent: Floats = np.zeros(self.dimension)
        self._others: Floats = np.zeros(self.dimension)
        self._round = 0
        self._plan: PrivacyPlan | None = None
        self.contributors = 0
        self.public: list[Floats] = []
        self.informed: list[Floats] = []
        self.remainder = _Remainder()

    @property
    def plan(self) -> PrivacyPlan:
        """The plan of the clients; in runs with local noise that of the last one seen."""
        if self._plan is None:
            raise UsageError("the repeated run sent no training instruction")
        return self._plan

    def sent(self, message: Message) -> None:
        """Once a round: the global weights; what the others would contribute at them."""
        if message.metadata.message_type != "train":
            return
        instruction = TrainInstruction.from_content(message.content)
        self._plan = instruction.plan
        if instruction.round == self._round:
            return
        self._round = instruction.round
        weights = read_record(read_arrays(message.content), like=weights_of(self._model))
        self._sent = to_vector(weights, self._names)
        if _is_union(self._config):
            load_weights(self._model, weights)
            self._others = self._expected_gradient(instruction.plan)
        else:
            self.public.append(np.zeros(len(self._owner)))

    def received(self, message: Message) -> None:
        """With local noise: a client's own update, projected on its own canaries."""
        if (
            _is_union(self._config)
            or message.metadata.message_type != "train"
            or message.has_error()
        ):
            return
        # Node ids follow the clients' numbers.
        client = message.metadata.src_node_id - 2
        weights = read_record(read_arrays(message.content), like=weights_of(self._model))
        update = to_vector(weights, self._names) - self._sent
        own = self._owner == client
        scale = self.plan.expected_batch_size / self._config.training.learning_rate
        projected = self._directions[client] @ (-update).astype(np.float32)
        self.public[-1][own] = scale / self.plan.clip_norm * projected
        self.contributors = 1

    def on_release(self, request: ReleaseRequest, _: object, released: Released) -> None:
        """With sealed sums: what the key authority released, as the server restores it."""
        mechanism = self.plan.mechanism
        assert mechanism is not None
        grid = Grid(mechanism.step, mechanism.clamp)
        seed = rotation_seed(self._config, request.round)
        rotation, restored = Rotation(self.dimension, seed), grid.restored(released.values)
        vector = rotation.inverse(restored)
        self.contributors = request.contributors
        self.public.append(self._project(vector))
        self.informed.append(self._project(vector - self._others))
        if self.plan.sampling == "full":
            norm = self.plan.clip_norm
            known = rotation.forward(self._others + norm * self._canaries)
            self.remainder.add((restored - known) / norm)

    def _project(self, vector: NDArray[Any]) -> Floats:
        narrow = (vector / self.plan.clip_norm).astype(np.float32)
        found = np.zeros(len(self._owner))
        for client, own in enumerate(self._directions):
            found[self._owner == client] = own @ narrow
        return found

    def _expected_gradient(self, plan: PrivacyPlan) -> Floats:
        """What all records together contribute at these weights, in the mean over sampling."""
        everything = replace(plan, sampling="full", sampling_rate=1.0)
        unused = SeededNoise(seeded_key("audit"))
        total, _ = clipped_gradient_sum(self._model, self._train, everything, unused)
        return np.asarray(plan.sampling_rate * total)
