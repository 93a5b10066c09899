"""Every estimate of a gradient that a single party of a run can make, from the bytes it got."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from calyx.audit.attacks.inversion.ciphertexts import PublicKeyHolder
from calyx.audit.attacks.inversion.estimates import contribution
from calyx.audit.attacks.inversion.reference_federation import CapturedRound
from calyx.audit.replay.capture import (
    AUTHORITY,
    PUBLIC,
    SERVER,
    CapturedMessage,
    client_name,
    client_number,
    released_integers,
    restored_sum,
)
from calyx.shared.models.vector import to_vector
from calyx.shared.protocol.arrays import weights_of
from calyx.shared.protocol.sealed.messages import SealingOffer, read_sealed_reply

Vector = NDArray[np.float64]

_STRATEGIES_THAT_ADAPT = ("fedadam", "fedyogi")


@dataclass(frozen=True)
class GradientEstimate:
    """An estimate of a gradient that a party can make.

    Attributes:
        name: key in the evidence.
        party: the party that can make it.
        sees: what it is made from, in words.
        vector: the estimate, flat; of unknown scale where it is made from ciphertexts.
        messages: the captured bytes that it was made from.
        clients: the clients whose records are behind it.
    """

    name: str
    party: str
    sees: str
    vector: Vector
    messages: tuple[CapturedMessage, ...]
    clients: tuple[int, ...]


def gradient_estimates(captured: CapturedRound, public: CapturedMessage) -> list[GradientEstimate]:
    """Every estimate that a single party can make."""
    cohort = sorted(
        client_number(c.receiver) for c in captured.capture.find("train", 1, sender=SERVER)
    )
    first = _weights(captured, weights_of(captured.model))
    estimates = []
    released = captured.capture.find("released sum", 1)
    if not captured.config.is_sealed:
        estimates.append(_plain_update(captured, cohort[0], first))
    else:
        estimates.append(_ciphertext(captured, cohort[0]))
    if released:
        requests = captured.capture.find("release request", 1)
        vector = _sum_as_gradient(captured, restored_sum(
            released_integers(released[0]), captured.config, captured.plan, 1
        )) / _records(captured, cohort)  # fmt: skip
        words = "the released sum of " + _clients(len(cohort))
        estimates += [
            GradientEstimate("server-sum", SERVER, words, vector, (released[0],), tuple(cohort)),
            GradientEstimate(
                "authority-sum",
                AUTHORITY,
                f"{words}, which it decrypts",
                vector,
                (*requests, released[0]),
                tuple(cohort),
            ),
        ]
    if (client := _colluder(captured, cohort)) is not None:
        estimates.append(_colluding(captured, cohort, client, first))
    last = _weights(captured, read_final(captured, public))
    estimates.append(
        GradientEstimate(
            "public-model",
            PUBLIC,
            "how the final model differs from the first weights",
            first - last,
            (public,),
            tuple(range(len(captured.records))),
        )
    )
    return estimates


def read_final(captured: CapturedRound, public: CapturedMessage) -> dict[str, NDArray[Any]]:
    """The weights in the final model's file."""
    loaded = load(public.parts[0])
    return {name: loaded[name] for name in weights_of(captured.model)}


def _plain_update(captured: CapturedRound, client: int, first: Vector) -> GradientEstimate:
    (sent,) = captured.capture.find("train", 1, receiver=client_name(client))
    (reply,) = captured.capture.find("train", 1, sender=client_name(client))
    update = _weights(captured, captured.reply(client)) - first
    return GradientEstimate(
        "server-update",
        SERVER,
        "the update of one client",
        -update / _scale(captured),
        (sent, reply),
        (client,),
    )


def _ciphertext(captured: CapturedRound, client: int) -> GradientEstimate:
    (offered,) = captured.capture.find("query.sealing", 0, receiver=client_name(client))
    (reply,) = captured.capture.find("train", 1, sender=client_name(client))
    offer = SealingOffer.from_content(offered.message.content)
    upload, _ = read_sealed_reply(reply.message.content)
    holder = PublicKeyHolder(offer.parameters, offer.public_context)
    return GradientEstimate(
        "server-ciphertext",
        SERVER,
        "the ciphertexts of one client, as numbers, and the public key",
        holder.numbers(upload.chunks, offer.parameters.length),
        (offered, reply),
        (client,),
    )


def _colluder(captured: CapturedRound, cohort: list[int]) -> int | None:
    """A client that took part in the round and received its result."""
    shown = {client_number(c.receiver) for c in captured.capture.find("train", 2, sender=SERVER)}
    both = sorted(shown & set(cohort)) if len(cohort) > 1 else []
    return both[-1] if both else None


def _colluding(
    captured: CapturedRound, cohort: list[int], client: int, first: Vector
) -> GradientEstimate:
    """Two global models, and what the client itself put in between."""
    others = tuple(number for number in cohort if number != client)
    step = first - _weights(captured, captured.final)
    federation, plan = captured.config.federation, captured.plan
    sees = "two global models, less its own part"
    if federation.strategy in _STRATEGIES_THAT_ADAPT:
        vector, sees = step, "two global models"
    elif plan.is_gradient_sum:
        total = step / federation.server_learning_rate * plan.sampling_rate
        total *= len(cohort) * plan.declared_records
        total -= restored_sum(contribution(captured, client), captured.config, plan, 1)
        vector = total / _records(captured, others)
    elif not captured.config.is_sealed:
        own = first - _weights(captured, captured.reply(client))
        share = len(captured.records[client]) / _records(captured, cohort)
        vector = (step - share * own) / (1 - share) / _scale(captured)
    else:
        vector, sees = step / _scale(captured), "two global models"
    found = [
        *captured.capture.find("train", 1, receiver=client_name(client)),
        *captured.capture.find("train", 1, sender=client_name(client)),
        *captured.capture.find("train", 2, receiver=client_name(client)),
    ]
    return GradientEstimate(
        "client-models", client_name(client), sees, vector, tuple(found), others
    )


def _sum_as_gradient(captured: CapturedRound, total: Vector) -> Vector:
    """A released sum as a sum of gradients: a sum of updates is one up to sign and scale."""
    plan = captured.plan
    if plan.is_gradient_sum:
        return total
    return -total * plan.declared_records / _scale(captured)


def _scale(captured: CapturedRound) -> float:
    """The factor by which local training scales a gradient that changes little on the way."""
    return captured.config.training.learning_rate * captured.plan.steps_per_round


def _records(captured: CapturedRound, clients: tuple[int, ...] | list[int]) -> int:
    return sum(len(captured.records[client]) for client in clients)


def _weights(captured: CapturedRound, weights: dict[str, NDArray[Any]]) -> Vector:
    return to_vector(weights, captured.names)


def _clients(count: int) -> str:
    return "one client" if count == 1 else f"{count} clients"
