"""What each party really received in a run: the bytes that crossed its boundary.

`Capture` stands between the real parties of a repeated run (`calyx.audit.replay.replay`) and keeps
every message in the form in which it travels: Flower's messages in Flower's wire format, calls of
the key authority in that of its gRPC service. A party's view is what it sent or received:

=========  ======================================================================================
server     all messages of all clients; its requests to the key authority, and the answers
client     its own messages only; clients are named by number
authority  requests with the sum's ciphertexts, and its answers
network    all of the above: what a wire tap gets *where TLS is broken*; otherwise only who talks
           to whom, when, and how much
public     the final model, and what can be known before a run: code, configuration, first weights
=========  ======================================================================================

Assumptions: parties keep to the protocol while they are being watched, and a party can keep what
it computes from its view. Parties that work together see the union of their views.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from calyx.shared.config import Config
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.protocol.authority import authority_pb2 as pb
from calyx.shared.protocol.authority.client import release_parts
from calyx.shared.protocol.authority.interface import Released, ReleaseRequest
from calyx.shared.protocol.messages import TrainInstruction
from calyx.shared.protocol.sealed.sum_coding import SumCoding
from calyx.simulations.engines.grid import FIRST_CLIENT_NODE_ID
from calyx.simulations.engines.pool import decode, encode

SERVER, AUTHORITY, NETWORK, PUBLIC = "server", "authority", "network", "public"
_CLIENT = "client "


def client_name(number: int) -> str:
    """A client's name in views."""
    return f"{_CLIENT}{number}"


def client_number(party: str) -> int:
    """Inverse of `client_name`."""
    return int(party.removeprefix(_CLIENT))


@dataclass(frozen=True)
class CapturedMessage:
    """One message or call as it crossed from one party to another.

    Attributes:
        round: counted from 1; 0 before round 1.
        kind: for example ``train`` or ``release``.
        sender, receiver: parties.
        parts: the bytes, in as many pieces as they travel.
    """

    round: int
    kind: str
    sender: str
    receiver: str
    parts: tuple[bytes, ...] = field(repr=False)

    @property
    def size_bytes(self) -> int:
        """Bytes of all parts."""
        return sum(map(len, self.parts))

    @property
    def sha256(self) -> str:
        """Over all parts one after the other, hex."""
        state = hashlib.sha256()
        for part in self.parts:
            state.update(part)
        return state.hexdigest()

    @property
    def message(self) -> Message:
        """A Flower message, read back from the bytes."""
        return decode(self.parts[0])


class CaptureComplete(Exception):
    """Everything required was captured: not an error, it ends a repeated run early."""


class Capture:
    """A `calyx.simulations.engines.grid.Tap` that also listens at the key authority.

    Args:
        rounds: ends the run with `CaptureComplete` once the instructions of the round after these
            have been sent, which show the clients the last result.
    """

    def __init__(self, rounds: int) -> None:
        self._rounds, self._round = rounds, 0
        self.messages: list[CapturedMessage] = []

    def sent(self, message: Message) -> None:
        """See `Tap`."""
        if message.metadata.message_type == "train":
            self._round = TrainInstruction.from_content(message.content).round
        self._add(message, SERVER, _client_of(message.metadata.dst_node_id))

    def received(self, message: Message) -> None:
        """See `Tap`."""
        if self._round > self._rounds:
            raise CaptureComplete
        self._add(message, _client_of(message.metadata.src_node_id), SERVER)

    def on_release(
        self, request: ReleaseRequest, chunks: Sequence[bytes], released: Released
    ) -> None:
        """See `calyx.audit.replay.replay.Observers`."""
        asked = tuple(part.SerializeToString() for part in release_parts(request, chunks))
        answer = released.values.astype("<i8").tobytes()
        self.messages += [
            CapturedMessage(request.round, "release request", SERVER, AUTHORITY, asked),
            CapturedMessage(request.round, "released sum", AUTHORITY, SERVER, (answer,)),
        ]

    def view(self, *parties: str) -> list[CapturedMessage]:
        """What these parties together sent or received; all of it for the network."""
        everything = NETWORK in parties
        return [c for c in self.messages if everything or {c.sender, c.receiver} & {*parties}]

    def find(
        self, kind: str, server_round: int, *, sender: str = "", receiver: str = ""
    ) -> list[CapturedMessage]:
        """Messages of a kind in one round, in order; an empty name matches any party."""
        return [
            c
            for c in self.messages
            if (c.kind, c.round) == (kind, server_round)
            and sender in ("", c.sender)
            and receiver in ("", c.receiver)
        ]

    def _add(self, message: Message, sender: str, receiver: str) -> None:
        kind = message.metadata.message_type
        self.messages.append(
            CapturedMessage(self._round, kind, sender, receiver, (encode(message),))
        )


def released_integers(message: CapturedMessage) -> NDArray[np.int64]:
    """The integers of a ``released sum``."""
    return np.frombuffer(message.parts[0], dtype="<i8").astype(np.int64)


def requested_chunks(message: CapturedMessage) -> list[bytes]:
    """The ciphertexts of a ``release request``."""
    parts = map(pb.ReleasePart.FromString, message.parts)
    return [part.chunk for part in parts if part.WhichOneof("part") == "chunk"]


def restored_sum(
    values: NDArray[np.int64], config: Config, plan: PrivacyPlan, server_round: int
) -> NDArray[np.float64]:
    """A released sum in the units of gradients or weights: anyone can undo grid and rotation."""
    return SumCoding.of(config, plan, len(values), server_round).restored(values)


def table(messages: Sequence[CapturedMessage]) -> list[dict[str, Any]]:
    """What crossed, without the bytes themselves; JSON-ready."""
    return [
        {
            "round": c.round,
            "kind": c.kind,
            "sender": c.sender,
            "receiver": c.receiver,
            "parts": len(c.parts),
            "bytes": c.size_bytes,
            "sha256": c.sha256,
        }
        for c in messages
    ]


def _client_of(node: int) -> str:
    return client_name(node - FIRST_CLIENT_NODE_ID)
