"""Where an observer of canaries stands, and what it sees there, round by round.

x_ti = <c_i, what was released in round t> / C          c_i: the canary's direction

A canary that was in adds 1 each time it was drawn; noise adds its multiplier. Two
observers are recorded:

* *public* sees what is released and nothing else: the sum of a round, or with local noise each
  client's update;
* *informed* is the one that differential privacy is promised against. It also knows every record
  but the canaries, and subtracts what they contribute; and it colludes with all the clients that
  the guarantee does not count on, and subtracts their sealed integers, noise included. It exists
  where a round is one step.

Where nothing is sampled, the auditor, who also knows the coins, can subtract records and canaries
completely. What *remains* of each round is the noise (`calyx.audit.attacks.noise.remainders`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray
from torch import nn

from calyx.audit.attacks.noise.remainders import Remainders
from calyx.audit.replay.record_sums import distance_from_sum_by_record
from calyx.client.instrumentation.canaries import directions
from calyx.client.node import Node
from calyx.client.sealing.sealing import integers_to_seal
from calyx.client.training.dp_sgd import clipped_gradient_sum
from calyx.shared.config import Config
from calyx.shared.data import Dataset, load_split
from calyx.shared.errors import RunError
from calyx.shared.models import build_model
from calyx.shared.models.vector import dimension, to_vector, trainable_names
from calyx.shared.privacy.noise import SeededNoise, seeded_key
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.protocol.arrays import Weights, load_weights, read_record, weights_of
from calyx.shared.protocol.authority.interface import Released, ReleaseRequest
from calyx.shared.protocol.messages import TrainInstruction, read_arrays
from calyx.shared.protocol.sealed.sum_coding import SumCoding
from calyx.simulations.engines.grid import FIRST_CLIENT_NODE_ID

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# The trainer's clipped sum is computed a second way in this many rounds, over this many records.
_CHECKED_ROUNDS, _CHECKED_RECORDS = 3, 100


@dataclass(frozen=True)
class Placed:
    """The canaries: where they point, who holds them, and which are in.

    Attributes:
        seed: from which the directions are drawn.
        places: rows of the rotation, int64 (canaries,).
        owner: client numbers, int64 (canaries,).
        coins: bool (canaries,).
    """

    seed: int
    places: Integers
    owner: Integers
    coins: NDArray[np.bool_]

    def projected(self, vector: Floats, clip_norm: float) -> Floats:
        """A released vector projected on every direction, in clip norms; (canaries,)."""
        return directions(self.seed, len(vector)).forward(vector)[self.places] / clip_norm

    def included(self, clients: Collection[int], size: int) -> Floats:
        """What the canaries of these clients add to a full batch, in clip norms; (size,)."""
        chosen = self.places[self.coins & np.isin(self.owner, list(clients))]
        by_place = np.zeros(size)
        by_place[chosen] = 1.0
        return directions(self.seed, size).inverse(by_place)


class Projections:
    """What one observer saw: projections, and the noise in each.

    A noise of 0 stands for a round in which the canary's holder took no part.
    """

    def __init__(self, canaries: int) -> None:
        self._canaries = canaries
        self._values: dict[int, Floats] = {}
        self._noise: dict[int, Floats] = {}

    def add(self, number: int, whose: NDArray[np.bool_], values: Floats, noise: float) -> None:
        """Note (some of) a round's projections; `values` is (canaries,)."""
        for kept, new in ((self._values, values), (self._noise, np.full(self._canaries, noise))):
            row = kept.setdefault(number, np.zeros(self._canaries))
            row[whose] = new[whose]

    @property
    def values(self) -> Floats:
        """Float64 (rounds, canaries), in clip norms."""
        return np.array([self._values[number] for number in sorted(self._values)])

    @property
    def noise(self) -> Floats:
        """Standard deviations, float64 (rounds, canaries), in clip norms."""
        return np.array([self._noise[number] for number in sorted(self._noise)])


class _Known:
    """What the auditor knows beforehand: model, records, and which client holds which records."""

    def __init__(self, config: Config, partition: Sequence[Integers]) -> None:
        split = load_split(config.data, config.seed)
        self._train: Dataset = split.train
        self._partition = partition
        self._rounds = config.training.rounds
        self.model: nn.Module = build_model(
            config.model, split.test.spec, split.test.classes, config.seed
        )
        self.names = trainable_names(self.model)
        self.dimension = dimension(self.model)
        named = dict(self.model.named_parameters())
        self.tensor_sizes = [named[name].numel() for name in self.names]
        self.disagreements: list[float] = []

    def read(self, message: Message) -> Weights:
        return read_record(read_arrays(message.content), like=weights_of(self.model))

    def expected_sum(self, clients: Collection[int], weights: Weights, plan: PrivacyPlan) -> Floats:
        """What their records contribute to a step, on average over sampling; (dimension,)."""
        held = np.concatenate([self._partition[client] for client in sorted(clients)])
        return plan.sampling_rate * self._trainers_sum(self._train.subset(held), weights, plan)

    def check(self, number: int, weights: Weights, plan: PrivacyPlan) -> None:
        """In a few rounds, check that the trainer clips as it says; subtraction would hide it."""
        wanted = {round(x) for x in np.linspace(1, self._rounds, _CHECKED_ROUNDS)}
        if number not in wanted:
            return
        chosen = np.random.default_rng(number).permutation(len(self._train))[:_CHECKED_RECORDS]
        some = self._train.subset(np.sort(chosen))
        trainers = self._trainers_sum(some, weights, plan)
        distance = distance_from_sum_by_record(self.model, some, plan.clip_norm, trainers)
        self.disagreements.append(distance)

    def _trainers_sum(self, data: Dataset, weights: Weights, plan: PrivacyPlan) -> Floats:
        load_weights(self.model, weights)
        everything = replace(plan, noise="distributed", sampling="full", sampling_rate=1.0)
        unused = SeededNoise(seeded_key("audit"))
        return clipped_gradient_sum(self.model, data, everything, unused)[0]


class Watcher:
    """Base of the two places to stand at: a Flower `Tap` that also sees releases."""

    def __init__(self, config: Config, placed: Placed, partition: Sequence[Integers]) -> None:
        self._config, self._placed = config, placed
        self._known = _Known(config, partition)
        self._weights: Weights = {}
        self.public, self.informed = (Projections(len(placed.coins)) for _ in range(2))
        self.remainders = Remainders(self._expected_remainders, self._known.tensor_sizes)
        # By client, as last instructed.
        self.instructions: dict[int, TrainInstruction] = {}

    @property
    def _expected_remainders(self) -> int:
        """One per round, of the sum."""
        return self._config.training.rounds

    @property
    def dimension(self) -> int:
        """Of the released vectors."""
        return self._known.dimension

    @property
    def disagreements(self) -> list[float]:
        """Distances of the trainer's clipped sums from those computed again, in clip norms."""
        return self._known.disagreements

    def sent(self, message: Message) -> None:
        """See `calyx.simulations.engines.grid.Tap`."""
        if message.metadata.message_type != "train":
            return
        instruction = TrainInstruction.from_content(message.content)
        client = message.metadata.dst_node_id - FIRST_CLIENT_NODE_ID
        before = max((i.round for i in self.instructions.values()), default=0)
        self.instructions[client] = instruction
        if instruction.round != before:
            self._weights = self._known.read(message)
            self._known.check(instruction.round, self._weights, instruction.plan)

    def received(self, message: Message) -> None:
        """See `calyx.simulations.engines.grid.Tap`."""

    def on_release(self, request: ReleaseRequest, _: object, released: Released) -> None:
        """See `calyx.audit.replay.replay.OnRelease`."""


class SumWatcher(Watcher):
    """Stands where sums are released (distributed noise)."""

    def __init__(
        self,
        config: Config,
        placed: Placed,
        partition: Sequence[Integers],
        colluding: Sequence[Node],
    ) -> None:
        super().__init__(config, placed, partition)
        self._colluding = {node.partition: node for node in colluding}

    def on_release(self, request: ReleaseRequest, _: object, released: Released) -> None:
        """What the key authority released, as the server restores it, and as insiders do."""
        clients = {int(receipt.contributor) for receipt in request.receipts}
        plan = self.instructions[min(clients)].plan
        mechanism, placed = plan.mechanism, self._placed
        if mechanism is None:
            raise RunError("a sum was released whose plan has no client noise")
        coding = SumCoding.of(self._config, plan, self.dimension, request.round)
        rotation = coding.rotation
        whose = np.isin(placed.owner, list(clients))
        values = np.asarray(released.values, dtype=np.int64)

        def noise_of(contributors: int) -> float:
            return plan.noise_multiplier * float(np.sqrt(contributors / mechanism.shares))

        seen = placed.projected(coding.restored(values), plan.clip_norm)
        self.public.add(request.round, whose, seen, noise_of(len(clients)))

        insiders = clients & self._colluding.keys()
        honest = clients - insiders
        left = coding.grid.restored(values - sum(self._sent_by(client) for client in insiders))
        records = self._known.expected_sum(honest, self._weights, plan)
        seen = placed.projected(rotation.inverse(left) - records, plan.clip_norm)
        self.informed.add(request.round, whose, seen, noise_of(len(honest)))
        if plan.sampling == "full":
            canaries = plan.clip_norm * placed.included(honest, self.dimension)
            remainder = left - rotation.forward(records + canaries)
            remainder /= plan.clip_norm * noise_of(len(honest))
            self.remainders.add(
                -1,
                request.round,
                remainder,
                kurtosis=1 / (len(honest) * mechanism.share_variance),
                by_tensor=rotation.inverse(remainder),
            )

    def _sent_by(self, client: int) -> Integers:
        """The integers that a colluding client sealed in this round: it knows them."""
        node, instruction = self._colluding[client], self.instructions[client]
        load_weights(self._known.model, self._weights)
        noise = node.noise(instruction.digest(self._config, self._weights))
        records = node.records(self._config)
        vector, _ = clipped_gradient_sum(self._known.model, records, instruction.plan, noise)
        number, plan = instruction.round, instruction.plan
        return integers_to_seal(vector, self._config, plan, number, noise)[0]


class UpdateWatcher(Watcher):
    """Stands at the server, which sees each client's noised update (local noise)."""

    @property
    def _expected_remainders(self) -> int:
        """One per round from each client that is asked."""
        return self._config.training.rounds * self._config.cohort_size

    def received(self, message: Message) -> None:
        """A client's own update, projected on its own canaries."""
        if message.metadata.message_type != "train" or message.has_error():
            return
        client = message.metadata.src_node_id - FIRST_CLIENT_NODE_ID
        if client not in self.instructions or not self._is_reply(message):
            return
        instruction, placed = self.instructions[client], self._placed
        plan, training = instruction.plan, self._config.training
        sent = to_vector(self._weights, self._known.names)
        moved = to_vector(self._known.read(message), self._known.names) - sent
        gains = momentum_gains(training.momentum, plan.steps_per_round)
        # The sum of the steps' noisy sums, undone of learning rate, divisor and weight decay.
        total = -moved * plan.expected_batch_size / training.learning_rate
        total -= training.weight_decay * plan.expected_batch_size * gains.sum() * sent
        vector = total / np.sqrt(np.mean(gains**2))
        noise = plan.noise_multiplier * float(np.sqrt(plan.steps_per_round))
        number, whose = instruction.round, placed.owner == client
        seen = placed.projected(vector, plan.clip_norm)
        self.public.add(number, whose, seen, noise)
        if plan.steps_per_round > 1:
            return
        left = vector - self._known.expected_sum({client}, self._weights, plan)
        self.informed.add(number, whose, placed.projected(left, plan.clip_norm), noise)
        if plan.sampling == "full":
            canaries = plan.clip_norm * placed.included({client}, self.dimension)
            self.remainders.add(client, number, (left - canaries) / (plan.clip_norm * noise))

    def _is_reply(self, message: Message) -> bool:
        return bool(message.content.array_records)


def momentum_gains(momentum: float, steps: int) -> Floats:
    """How often each step's gradient counts in the movement of a round; (steps,).

    A gradient of step s moves the weights in that step and, by momentum b, again in all later ones:
    1 + b + ... + b^(steps - 1 - s).
    """
    return np.cumsum(momentum ** np.arange(steps))[::-1].astype(np.float64)


def insiders_of(config: Config) -> list[int]:
    """Clients that may collude: all that the guarantee does not count on, the last ones."""
    if config.privacy.noise != "distributed":
        return []
    spare = config.cohort_size - config.secure_aggregation.min_contributors
    return list(range(config.federation.clients - spare, config.federation.clients))
