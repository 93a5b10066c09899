"""What an observer makes of the bytes received: updates, sums, ciphertexts as numbers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from calyx.audit.attacks.inversion.ciphertexts import PublicKeyHolder
from calyx.audit.attacks.inversion.reference_federation import CapturedRound
from calyx.audit.replay.capture import client_name, released_integers, restored_sum
from calyx.client.node import Node
from calyx.client.sealing.sealing import integers_to_seal
from calyx.client.training.dp_sgd import clipped_gradient_sum
from calyx.shared.models.vector import to_vector
from calyx.shared.protocol.arrays import weights_of
from calyx.shared.protocol.messages import TrainInstruction
from calyx.shared.protocol.sealed.messages import SealingOffer, read_sealed_reply

Vector = NDArray[np.float64]


def as_gradient(vector: Vector, captured: CapturedRound) -> tuple[torch.Tensor, ...]:
    """A flat vector as one tensor for each parameter."""
    parts, start = [], 0
    for parameter in captured.model.parameters():
        part = vector[start : start + parameter.numel()]
        parts.append(torch.from_numpy(np.asarray(part)).reshape(parameter.shape))
        start += parameter.numel()
    return tuple(parts)


def contribution(captured: CapturedRound, client: int) -> NDArray[np.int64]:
    """The integers that a client sealed, computed again as it computed them, noise included.

    Only a client can do this, for its own records and noise; plans of record-level distributed
    noise only.
    """
    (sent,) = captured.capture.find("train", 1, receiver=client_name(client))
    instruction = TrainInstruction.from_content(sent.message.content)
    digest = instruction.digest(captured.config, weights_of(captured.model))
    node = Node(str(client), client, "", captured.config.seed, "", "", "")
    noise = node.noise(digest)
    vector, _ = clipped_gradient_sum(captured.model, captured.records[client], captured.plan, noise)
    return integers_to_seal(vector, captured.config, captured.plan, 1, noise)[0]


def update_in_clear(captured: CapturedRound) -> Vector:
    """What client 0 of an unsealed federation sent, less what it received."""
    before = to_vector(weights_of(captured.model), captured.names)
    return to_vector(captured.reply(0), captured.names) - before


def mean_gradient(captured: CapturedRound) -> Vector:
    """The released sum, over all records."""
    (message,) = captured.capture.find("released sum", 1)
    total = restored_sum(released_integers(message), captured.config, captured.plan, 1)
    if not captured.plan.is_private:
        # A sum of updates, not of gradients.
        total = -total / captured.config.training.learning_rate
    return total / len(captured.records)


def sealed_upload(captured: CapturedRound) -> tuple[PublicKeyHolder, list[bytes]]:
    """The public key as sent to client 0, and what client 0 sent back."""
    (offered,) = captured.capture.find("query.sealing", 0, receiver=client_name(0))
    offer = SealingOffer.from_content(offered.message.content)
    (reply,) = captured.capture.find("train", 1, sender=client_name(0))
    upload, _ = read_sealed_reply(reply.message.content)
    return PublicKeyHolder(offer.parameters, offer.public_context), list(upload.chunks)
