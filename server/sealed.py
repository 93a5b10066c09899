"""One round's updates as a sealed sum: the server adds ciphertexts and never sees an update.

Ciphertexts are added as they arrive, so memory does not grow with the clients. When enough are
there the key authority decrypts the sum, and only the sum; what comes back is integers that
already carry the clients' noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from server.collecting import Combined, moved
from server.exchange import exchange
from server.replies import Update
from server.rounds import Member
from server.strategy import Aggregator as Strategy
from shared.config import Config
from shared.encryption import Aggregator, SealingParameters
from shared.encryption.quantise import Grid as IntegerGrid
from shared.errors import EncryptionError, ProtocolError, RoundError
from shared.models.optimizer import make_optimizer
from shared.privacy.plan import PrivacyPlan
from shared.privacy.rotation import Rotation
from shared.protocol.arrays import NDArray, Weights
from shared.protocol.authority_client import Authority, Opening, ReleaseRequest
from shared.protocol.receipts import Receipt
from shared.protocol.refusals import read_failure
from shared.protocol.sealing import SealingOffer, read_sealed_reply, rotation_seed

Vector = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True)
class SealedRun:
    """What stays the same over the rounds of a sealed run.

    Attributes:
        run: identifier of the run.
        config: the run.
        plan: the plan that all clients share.
        parameters: how vectors are packed and encrypted.
        names: trainable parameters, in order.
        authority: who can decrypt sums.
        opening: public key and admissions.
    """

    run: str
    config: Config
    plan: PrivacyPlan
    parameters: SealingParameters
    names: list[str]
    authority: Authority
    opening: Opening


def offer_to_clients(sealed: SealedRun, grid: Grid, node_ids: Mapping[str, int]) -> dict[str, str]:
    """Send every client the public key and its admission; return who refused, and why."""
    messages, clients = [], {}
    for client, admission in sealed.opening.admissions.items():
        offer = SealingOffer(
            sealed.run, sealed.parameters, sealed.opening.public_context, admission
        )
        node = node_ids[client]
        clients[node] = client
        messages.append(Message(offer.to_content(), node, f"{MessageType.QUERY}.sealing"))
    refused = dict.fromkeys(clients.values(), "no answer to the sealing offer")
    for reply in exchange(grid, messages, sealed.config.federation.round_timeout_s):
        client = clients[reply.metadata.src_node_id]
        if reply.has_error():
            refused[client] = read_failure(reply).reason
        else:
            del refused[client]
    return refused


class ServerOptimizer:
    """Applies released gradient sums: the configured optimiser, on the server.

    It works on released values only, so it costs no privacy.
    """

    def __init__(self, config: Config, dimension: int) -> None:
        self._vector = torch.nn.Parameter(torch.zeros(dimension, dtype=torch.float64))
        self._optimizer = make_optimizer(config.training, [self._vector])

    def step(self, gradient: Vector, start: Vector) -> Vector:
        """The step from `start` along the mean `gradient`, float64 (dimension,)."""
        with torch.no_grad():
            self._vector.copy_(torch.from_numpy(start))
        self._vector.grad = torch.from_numpy(gradient)
        self._optimizer.step()
        return np.asarray(self._vector.detach().numpy() - start)

    def state(self) -> dict[str, NDArray]:
        """For the checkpoint."""
        kept = self._optimizer.state.get(self._vector, {})
        return {f"optimizer.{k}": v.numpy() for k, v in kept.items() if torch.is_tensor(v)}

    def restore(self, state: Mapping[str, NDArray]) -> None:
        """Inverse of `state`."""
        kept = {
            k.removeprefix("optimizer."): torch.from_numpy(v.copy())
            for k, v in state.items()
            if k.startswith("optimizer.")
        }
        if kept:
            self._optimizer.state[self._vector] = kept


class SealedCollection:
    """A `server.collecting.Collection` of ciphertexts."""

    def __init__(
        self,
        server_round: int,
        current: Weights,
        run: SealedRun,
        strategy: Strategy,
        optimizer: ServerOptimizer,
    ) -> None:
        self._round, self._current, self._run = server_round, current, run
        self._strategy, self._optimizer = strategy, optimizer
        self._sum = Aggregator(run.parameters, run.opening.public_context)
        self._receipts: list[Receipt] = []
        self._weight = 0.0

    def add(self, client: str, member: Member, reply: Message) -> None:
        """See `Collection`."""
        sealed, receipt = read_sealed_reply(reply.content)
        expected = (self._run.run, self._round, client, sealed.digest)
        if (receipt.run, receipt.round, receipt.contributor, receipt.upload_hash) != expected:
            raise ProtocolError("the receipt is not for this client's upload of this round")
        self._sum.add(sealed)
        self._receipts.append(receipt)
        self._weight += member.declared_records / self._run.plan.declared_records

    def combine(self) -> Combined:
        """See `Collection`."""
        config, plan = self._run.config, self._run.plan
        total = self._sum.finish()
        least = config.secure_aggregation.min_contributors
        if total.contributors < least:
            raise RoundError(f"{total.contributors} of at least {least} clients sealed an update")
        request = ReleaseRequest.of(self._run.run, self._round, self._receipts, total)
        released = self._run.authority.release(request, total.chunks)
        if released.values.shape != (self._run.parameters.length,):
            raise EncryptionError("the released sum has not the length of the model")
        vector = self._restored(released.values)
        if plan.unit == "record" and plan.noise == "distributed":
            return Combined(self._gradient_step(vector), {})
        divisor = self._weight if not plan.is_private else float(total.contributors)
        mean = moved(self._current, self._run.names, vector / divisor)
        update = [Update("sum", mean, 1, {})]
        weights, _ = self._strategy.aggregate(self._round, self._current, update)
        return Combined(weights, {})

    def _restored(self, values: NDArray) -> Vector:
        plan, length = self._run.plan, self._run.parameters.length
        if plan.mechanism is None:
            bound = self._run.parameters.value_bound
            grid = IntegerGrid(self._run.config.secure_aggregation.clamp / bound, bound)
        else:
            grid = IntegerGrid(plan.mechanism.step, plan.mechanism.clamp)
        seed = rotation_seed(self._run.config, self._round)
        return Rotation(length, seed).inverse(grid.restored(values))

    def _gradient_step(self, total: Vector) -> Weights:
        """One optimiser step over the union; the divisor is public: expected records in the sum."""
        expected = self._run.plan.sampling_rate * self._weight * self._run.plan.declared_records
        start = np.concatenate(
            [np.asarray(self._current[n], np.float64).ravel() for n in self._run.names]
        )
        step = self._optimizer.step(total / expected, start)
        return moved(self._current, self._run.names, step)
