"""Whole updates with their own noise: the run repeated, less what each client had learned.

Where clients protect their updates themselves (``unit = client``, local noise), the server
receives a clipped update and noise. In a simulation the auditor has data and seeds, trains as the
client did, clips by its own arithmetic, and subtracts.
"""

from __future__ import annotations

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from calyx.audit.attacks.noise.remainders import Remainders
from calyx.audit.finished_run import AuditedRun
from calyx.audit.progress import Progress
from calyx.audit.replay.replay import Observers, replayed_run
from calyx.client.node import Node
from calyx.client.training.local import train_locally
from calyx.shared.data import load_split
from calyx.shared.models import build_model
from calyx.shared.models.schedule import in_round
from calyx.shared.models.vector import to_vector
from calyx.shared.privacy.noise import SeededNoise, seeded_key
from calyx.shared.protocol.arrays import Weights, load_weights, read_record, weights_of
from calyx.shared.protocol.messages import TrainInstruction, read_arrays
from calyx.shared.tasks.find import task_of
from calyx.simulations.engines.grid import FIRST_CLIENT_NODE_ID

# Each costs another training of a client.
_MOST_UPDATES = 60


def replayed(audited: AuditedRun, progress: Progress, workers: int | None) -> Remainders:
    """The noise in clients' updates, over its planned deviation."""
    total = audited.config.training.rounds
    watcher = UpdateReplay(audited)
    observers = Observers(
        tap=watcher, on_round=lambda number: progress("updates once more", number / total)
    )
    with replayed_run(audited.config, observers, partition=audited.partition, workers=workers):
        pass
    return watcher.remainders


class UpdateReplay:
    """A Flower `Tap` at the server, which sees each client's noised update."""

    def __init__(self, audited: AuditedRun) -> None:
        config = audited.config
        self._config, self._partition_path = config, str(audited.partition_path)
        split = load_split(config.data, config.seed, config.task)
        spec = split.test.spec
        self._task = task_of(config.task, spec.target)
        self._model = build_model(config.model, spec, config.seed, self._task)
        like = weights_of(self._model)
        # All that the client clips and noises: buffers too, if they are floating-point numbers.
        self._names = [name for name, array in like.items() if array.dtype.kind == "f"]
        self._clients = max(1, _MOST_UPDATES // config.training.rounds)
        self.remainders = Remainders(_MOST_UPDATES, [like[name].size for name in self._names])
        self._instructions: dict[int, TrainInstruction] = {}
        self._weights: Weights = {}

    def sent(self, message: Message) -> None:
        """See `calyx.simulations.engines.grid.Tap`."""
        if message.metadata.message_type != "train":
            return
        client = message.metadata.dst_node_id - FIRST_CLIENT_NODE_ID
        self._instructions[client] = TrainInstruction.from_content(message.content)
        self._weights = self._read(message)

    def received(self, message: Message) -> None:
        """See `calyx.simulations.engines.grid.Tap`."""
        client = message.metadata.src_node_id - FIRST_CLIENT_NODE_ID
        if message.metadata.message_type != "train" or message.has_error():
            return
        instruction = self._instructions.get(client)
        # Different ones in each round, if not all can be examined.
        turn = (client - (instruction.round if instruction else 0)) % self._config.cohort_size
        if instruction is None or turn >= self._clients or not message.content.array_records:
            return
        start = to_vector(self._weights, self._names)
        update = to_vector(self._read(message), self._names) - start
        plan = instruction.plan
        learned = self._learned(client, instruction) - start
        length = float(np.linalg.norm(learned))
        clipped = learned * min(1.0, plan.clip_norm / length) if length else learned
        deviation = plan.noise_multiplier * plan.clip_norm
        self.remainders.add(client, instruction.round, (update - clipped) / deviation)

    def _read(self, message: Message) -> Weights:
        return read_record(read_arrays(message.content), like=weights_of(self._model))

    def _learned(self, client: int, instruction: TrainInstruction) -> NDArray[np.float64]:
        """The client's weights after its own training, without any protection."""
        config = self._config
        node = Node.from_settings(
            {
                "partition-id": client,
                "partition-file": self._partition_path,
                "simulation-seed": config.seed,
                "ledger": "none: what it learned is computed once more, and not released",
            }
        )
        load_weights(self._model, self._weights)
        train_locally(
            self._model,
            node.records(config),
            self._task,
            in_round(config.training, instruction.round),
            instruction.plan,
            proximal_mu=instruction.proximal_mu,
            noise=SeededNoise(seeded_key("audit")),
            order_seed=node.order_seed(config, instruction.round),
        )
        return to_vector(weights_of(self._model), self._names)
