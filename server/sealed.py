"""One round's updates as a sealed sum: the server adds ciphertexts and never sees an update.

Ciphertexts are added as they arrive, so memory does not grow with the clients. When enough are
there the key authority decrypts the sum, and only the sum; what comes back is integers that
already carry the clients' noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from server.collecting import Combined, moved
from server.exchange import exchange
from server.replies import Update
from server.rounds import Member
from server.strategy import Aggregator as Strategy
from shared.config import Config
from shared.config.schema import FederationConfig
from shared.encryption import Aggregator, SealingParameters
from shared.encryption.quantise import Grid as IntegerGrid
from shared.errors import EncryptionError, ProtocolError, RoundError
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


class UnionStep:
    """The step along a released sum of gradients: SGD with momentum, on the server.

    It works on released values only, so it costs no privacy.
    """

    def __init__(self, config: FederationConfig) -> None:
        self._rate, self._momentum = config.server_learning_rate, config.server_momentum
        self._velocity: Vector | None = None

    def step(self, gradient: Vector) -> Vector:
        """What to add to the weights, float64 (dimension,)."""
        before = 0.0 if self._velocity is None else self._momentum * self._velocity
        self._velocity = before + gradient
        return np.asarray(-self._rate * self._velocity)

    def state(self) -> dict[str, NDArray]:
        """For the checkpoint."""
        kept = self._velocity is not None and self._momentum > 0
        return {"union.velocity": np.asarray(self._velocity)} if kept else {}

    def restore(self, state: Mapping[str, NDArray]) -> None:
        """Inverse of `state`."""
        self._velocity = state.get("union.velocity")


class SealedCollection:
    """A `server.collecting.Collection` of ciphertexts."""

    def __init__(
        self,
        server_round: int,
        current: Weights,
        run: SealedRun,
        strategy: Strategy,
        union: UnionStep,
    ) -> None:
        self._round, self._current, self._run = server_round, current, run
        self._strategy, self._union = strategy, union
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
        """One step over the union; the divisor is public: the records expected in the sum.

        FedAdam and FedYogi take the negative mean gradient as the clients' mean update.
        """
        plan, current = self._run.plan, self._current
        mean = total / (plan.sampling_rate * self._weight * plan.declared_records)
        if not self._strategy.is_adaptive:
            return moved(current, self._run.names, self._union.step(mean))
        update = [Update("sum", moved(current, self._run.names, -mean), 1, {})]
        return self._strategy.aggregate(self._round, current, update)[0]
