"""One round's updates as a sealed sum: the server adds ciphertexts and never sees an update.

Ciphertexts are added as they arrive, so memory does not grow with the clients. When enough have
arrived the sum is written down (`calyx.server.state.pending_release`) and the key authority
decrypts it, and only it; what comes back is integers that already carry the clients' noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from flwr.app import Message

from calyx.server.aggregation.collection import Combined, moved
from calyx.server.aggregation.gradient_step import ServerGradientStep
from calyx.server.aggregation.reply_validation import Update
from calyx.server.aggregation.strategy import Strategy
from calyx.server.aggregation.sum_bound import SumBound
from calyx.server.roster import Member, RoundRecord
from calyx.server.state.pending_release import PendingRelease
from calyx.server.state.witness import Witness
from calyx.shared.config import Config
from calyx.shared.config.load import digest as config_digest
from calyx.shared.encryption import Aggregator, SealedVector, SealingParameters, context_hash
from calyx.shared.errors import EncryptionError, ProtocolError, RoundError
from calyx.shared.models.schedule import rate_factor
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.protocol.arrays import Weights
from calyx.shared.protocol.authority.interface import Authority, Opening
from calyx.shared.protocol.sealed.messages import read_sealed_reply
from calyx.shared.protocol.sealed.receipts import Receipt
from calyx.shared.protocol.sealed.sum_coding import SumCoding

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
        authority: decrypts sums.
        opening: public key and admissions.
        witness: remembers what was released.
    """

    run: str
    config: Config
    plan: PrivacyPlan
    parameters: SealingParameters
    names: list[str]
    authority: Authority
    opening: Opening
    witness: Witness

    @property
    def least(self) -> int:
        """A sum of fewer contributors is not released."""
        return self.config.secure_aggregation.min_contributors

    @property
    def context(self) -> str:
        """Hash of the public key."""
        return context_hash(self.opening.public_context)


class SealedStep:
    """From the sum of the clients' uploads to the next global weights."""

    def __init__(self, run: SealedRun, strategy: Strategy, server_step: ServerGradientStep) -> None:
        self.run, self._strategy, self._server_step = run, strategy, server_step

    def finish(self, pending: PendingRelease, current: Weights) -> Combined:
        """Have a sum released and take the step from `current`.

        Raises:
            ReleaseRefused: the key authority does not release it, or was restored from a backup.
            UnfitSum: honest clients cannot add up to it; no step is taken.
            RunError: the authority cannot be reached. The same sum may be released later.
        """
        plan, server_round = self.run.plan, pending.record.round
        released = self.run.authority.release(pending.request, pending.total.chunks)
        self.run.witness.saw(released)
        if released.values.shape != (self.run.parameters.length,):
            raise EncryptionError("the released sum does not have the length of the model")
        bound = SumBound.of(
            self.run.config, plan, self.run.parameters, pending.total.contributors, pending.weight
        )
        bound.check(released.values)
        coding = SumCoding.of(self.run.config, plan, self.run.parameters.length, server_round)
        vector = coding.restored(released.values)
        if plan.is_gradient_sum:
            return Combined(self._gradient_step(vector, pending, current), {})
        divisor = pending.weight if not plan.is_private else float(pending.total.contributors)
        mean = moved(current, self.run.names, vector / divisor)
        update = [Update("sum", mean, 1, {})]
        weights, _ = self._strategy.aggregate(server_round, current, update)
        return Combined(weights, {})

    def _gradient_step(self, total: Vector, pending: PendingRelease, current: Weights) -> Weights:
        """One step over the union; the divisor is public: the records expected in the sum.

        FedAdam and FedYogi take the negative mean gradient as the clients' mean update.
        """
        plan = self.run.plan
        mean = total / (plan.sampling_rate * pending.weight * plan.declared_records)
        factor = rate_factor(self.run.config.training, pending.record.round)
        if not self._strategy.is_adaptive:
            return moved(current, self.run.names, self._server_step.step(mean, factor))
        update = [Update("sum", moved(current, self.run.names, -mean), 1, {})]
        return self._strategy.aggregate(pending.record.round, current, update, factor)[0]


class SealedCollection:
    """A `calyx.server.aggregation.collection.Collection` of ciphertexts.

    Args:
        record: of this round; replies are noted in it elsewhere as they come.
        current: the global weights.
        step: what is done with the sum.
        keep: makes the sum survive a crash, before it is released.
    """

    def __init__(
        self,
        record: RoundRecord,
        current: Weights,
        step: SealedStep,
        keep: Callable[[PendingRelease], None],
    ) -> None:
        self._record, self._current, self._step, self._keep = record, current, step, keep
        self._run = step.run
        self._sum = Aggregator(self._run.parameters, self._run.opening.public_context)
        self._receipts: list[Receipt] = []
        self._weight = 0.0

    def add(self, client: str, member: Member, reply: Message) -> None:
        """See `Collection`."""
        sealed, receipt = read_sealed_reply(reply.content)
        self._check(receipt, client, sealed)
        self._sum.add(sealed)
        self._receipts.append(receipt)
        self._weight += member.declared_records / self._run.plan.declared_records

    def _check(self, receipt: Receipt, client: str, sealed: SealedVector) -> None:
        """All that the key authority checks in a receipt: it refuses a sum for one bad receipt."""
        run = self._run
        said = (receipt.run, receipt.round, receipt.contributor, receipt.upload_hash)
        if said != (run.run, self._record.round, client, sealed.digest):
            raise ProtocolError("the receipt is not for this client's upload of this round")
        if receipt.parameters_digest != run.parameters.digest:
            raise ProtocolError("the receipt is for other sealing parameters")
        key = run.opening.contributor_keys.get(client)
        if key is None or not receipt.verify(key):
            raise ProtocolError("the receipt is not signed with the key this client enrolled with")
        if any(receipt.nonce == other.nonce for other in self._receipts):
            raise ProtocolError("the receipt has the nonce of another client's receipt")
        if any(receipt.upload_hash == other.upload_hash for other in self._receipts):
            raise ProtocolError("the upload is the same as another client's")

    def combine(self) -> Combined:
        """See `Collection`."""
        total, least = self._sum.finish(), self._run.least
        if total.contributors < least:
            raise RoundError(
                f"only {total.contributors} clients sealed an update; a sum needs at least {least}"
            )
        digest, receipts = config_digest(self._run.config), tuple(self._receipts)
        pending = PendingRelease(digest, self._run.run, self._record, receipts, total, self._weight)
        self._keep(pending)
        return self._step.finish(pending, self._current)
