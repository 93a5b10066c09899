"""Gathering one round's updates into one new model: in clear, or as a sealed sum.

`calyx.server.federation` hands each reply to a `Collection` as it arrives. A bad one raises and
leaves no trace; at the end `combine` gives the next global weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from calyx.server.aggregation.reply_validation import Update, examine, examine_unprotected
from calyx.server.aggregation.strategy import Strategy
from calyx.server.roster import Member
from calyx.shared.config import Config
from calyx.shared.encryption.quantise import contribution
from calyx.shared.models.vector import from_vector, to_vector
from calyx.shared.privacy.noise import NoiseSource
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.protocol.arrays import Weights


@dataclass(frozen=True)
class Combined:
    """The outcome of a round: new weights, and the clients' open metrics if any."""

    weights: Weights
    metrics: Mapping[str, float]


class Collection(Protocol):
    """The updates of one round."""

    def add(self, client: str, member: Member, reply: Message) -> None:
        """Take in one reply.

        Raises:
            ProtocolError, EncryptionError: it is not fit to be used; nothing has changed.
        """

    def combine(self) -> Combined:
        """The next global weights.

        Raises:
            ReleaseRefused: the key authority does not release the sum.
        """


class PlainCollection:
    """Updates in clear, combined by Flower's strategies in a fixed order."""

    def __init__(
        self,
        server_round: int,
        current: Weights,
        config: Config,
        strategy: Strategy,
    ) -> None:
        self._round, self._current = server_round, current
        self._limit, self._strategy = config.federation.max_update_norm, strategy
        self._updates: dict[str, Update] = {}

    def add(self, client: str, member: Member, reply: Message) -> None:
        """See `Collection`."""
        self._updates[client] = examine(
            reply,
            client=client,
            reference=self._current,
            declared_records=member.declared_records,
            max_update_norm=self._limit,
        )

    @property
    def updates(self) -> list[Update]:
        """What was accepted, not in order of arrival: sums of floats depend on their order."""
        return [self._updates[client] for client in _in_order(self._updates)]

    def combine(self) -> Combined:
        """See `Collection`."""
        weights, metrics = self._strategy.aggregate(self._round, self._current, self.updates)
        return Combined(weights, metrics)


class CentralCollection:
    """Updates in clear, clipped and noised by a server that is trusted with them (DP-FedAvg).

    Each is clipped to norm C as it arrives, the sum gets Gaussian noise of standard deviation
    sigma C and is divided by the clients that a round asks for by configuration (the estimator
    with a fixed denominator of McMahan et al. 2018, section 2.2). Every client counts the same, and
    the strategy sees one update, the noisy mean.

    **Nothing but the noisy sum depends on values.** An update is never left out for its norm, and
    one that is not finite counts as zero: to leave it out, or to divide by those that are left,
    would change the noise of the released mean with one client's records, and the reason would
    be in the journal. A client that is late, or that sends a message its code could not have
    sent, counts as zero too; which clients answer in time is taken to be public.
    """

    def __init__(
        self,
        server_round: int,
        current: Weights,
        config: Config,
        strategy: Strategy,
        plan: PrivacyPlan,
        names: list[str],
        noise: NoiseSource,
    ) -> None:
        self._round, self._current, self._strategy = server_round, current, strategy
        self._plan, self._names, self._noise = plan, names, noise
        self._divisor = config.cohort_size
        self._start = to_vector(current, names)
        self._clipped: dict[str, NDArray[np.float64]] = {}

    def add(self, client: str, member: Member, reply: Message) -> None:
        """See `Collection`."""
        weights = examine_unprotected(
            reply, reference=self._current, declared_records=member.declared_records
        )
        update = to_vector(weights, self._names) - self._start
        self._clipped[client] = contribution(update, self._plan.clip_norm)

    def combine(self) -> Combined:
        """See `Collection`."""
        total = np.zeros_like(self._start)
        for client in _in_order(self._clipped):
            total += self._clipped[client]
        std = self._plan.noise_multiplier * self._plan.clip_norm
        total += self._noise.gaussian(total.shape, std).numpy()
        mean = moved(self._current, self._names, total / self._divisor)
        weights, _ = self._strategy.aggregate(
            self._round, self._current, [Update("sum", mean, 1, {})]
        )
        return Combined(weights, {})


def _in_order(clients: Iterable[str]) -> list[str]:
    """Not the order of arrival, on which sums of floats would depend."""
    return sorted(clients, key=lambda name: (len(name), name))


def moved(
    current: Weights, names: list[str], step: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> Weights:
    """`current` with `step` added to the named arrays, in their own types."""
    parts = from_vector(step, current, names)
    return {
        name: (old + parts[name]).astype(old.dtype) if name in parts else old
        for name, old in current.items()
    }
