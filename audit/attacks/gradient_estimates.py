"""Every estimate of a gradient that a single party of a run can make, from the bytes it got."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from calyx.audit.attacks.inversion.ciphertexts import PublicKeyHolder
from calyx.audit.attacks.inversion.estimates import contribution
from calyx.audit.attacks.inversion.reference_federation import Played
from calyx.audit.replay.capture import (
    AUTHORITY,
    PUBLIC,
    SERVER,
    Crossing,
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
class Sight:
    """An estimate of a gradient that a party can make.

    Attributes:
        name: key in the evidence.
        party: whose.
        sees: what it is made of, in words.
        vector: the estimate, flat; of unknown scale where it is made of ciphertexts.
        crossings: the captured bytes that it was made from.
        clients: whose records are behind it.
    """

    name: str
    party: str
    sees: str
    vector: Vector
    crossings: tuple[Crossing, ...]
    clients: tuple[int, ...]


def sights_of(played: Played, public: Crossing) -> list[Sight]:
    """Every estimate that a single party can make."""
    cohort = sorted(
        client_number(c.receiver) for c in played.capture.find("train", 1, sender=SERVER)
    )
    first = _weights(played, weights_of(played.model))
    sights = []
    released = played.capture.find("released sum", 1)
    if not played.config.is_sealed:
        sights.append(_plain_update(played, cohort[0], first))
    else:
        sights.append(_ciphertext(played, cohort[0]))
    if released:
        requests = played.capture.find("release request", 1)
        vector = _sum_as_gradient(played, restored_sum(
            released_integers(released[0]), played.config, played.plan, 1
        )) / _records(played, cohort)  # fmt: skip
        words = "the released sum of " + _clients(len(cohort))
        sights += [
            Sight("server-sum", SERVER, words, vector, (released[0],), tuple(cohort)),
            Sight(
                "authority-sum",
                AUTHORITY,
                f"{words}, which it decrypts",
                vector,
                (*requests, released[0]),
                tuple(cohort),
            ),
        ]
    if (client := _colluder(played, cohort)) is not None:
        sights.append(_colluding(played, cohort, client, first))
    last = _weights(played, read_final(played, public))
    sights.append(
        Sight(
            "public-model",
            PUBLIC,
            "how the final model differs from the first weights",
            first - last,
            (public,),
            tuple(range(len(played.records))),
        )
    )
    return sights


def read_final(played: Played, public: Crossing) -> dict[str, NDArray[Any]]:
    """The weights in the final model's file."""
    loaded = load(public.parts[0])
    return {name: loaded[name] for name in weights_of(played.model)}


def _plain_update(played: Played, client: int, first: Vector) -> Sight:
    (sent,) = played.capture.find("train", 1, receiver=client_name(client))
    (reply,) = played.capture.find("train", 1, sender=client_name(client))
    update = _weights(played, played.reply(client)) - first
    return Sight(
        "server-update",
        SERVER,
        "the update of one client",
        -update / _scale(played),
        (sent, reply),
        (client,),
    )


def _ciphertext(played: Played, client: int) -> Sight:
    (offered,) = played.capture.find("query.sealing", 0, receiver=client_name(client))
    (reply,) = played.capture.find("train", 1, sender=client_name(client))
    offer = SealingOffer.from_content(offered.message.content)
    upload, _ = read_sealed_reply(reply.message.content)
    holder = PublicKeyHolder(offer.parameters, offer.public_context)
    return Sight(
        "server-ciphertext",
        SERVER,
        "the ciphertexts of one client, as numbers, and the public key",
        holder.numbers(upload.chunks, offer.parameters.length),
        (offered, reply),
        (client,),
    )


def _colluder(played: Played, cohort: list[int]) -> int | None:
    """A client that took part in the round and was shown its result."""
    shown = {client_number(c.receiver) for c in played.capture.find("train", 2, sender=SERVER)}
    both = sorted(shown & set(cohort)) if len(cohort) > 1 else []
    return both[-1] if both else None


def _colluding(played: Played, cohort: list[int], client: int, first: Vector) -> Sight:
    """Two global models, and what the client itself put in between."""
    others = tuple(number for number in cohort if number != client)
    step = first - _weights(played, played.final)
    federation, plan = played.config.federation, played.plan
    sees = "two global models, less its own part"
    if federation.strategy in _STRATEGIES_THAT_ADAPT:
        vector, sees = step, "two global models"
    elif plan.is_gradient_sum:
        total = step / federation.server_learning_rate * plan.sampling_rate
        total *= len(cohort) * plan.declared_records
        total -= restored_sum(contribution(played, client), played.config, plan, 1)
        vector = total / _records(played, others)
    elif not played.config.is_sealed:
        own = first - _weights(played, played.reply(client))
        share = len(played.records[client]) / _records(played, cohort)
        vector = (step - share * own) / (1 - share) / _scale(played)
    else:
        vector, sees = step / _scale(played), "two global models"
    found = [
        *played.capture.find("train", 1, receiver=client_name(client)),
        *played.capture.find("train", 1, sender=client_name(client)),
        *played.capture.find("train", 2, receiver=client_name(client)),
    ]
    return Sight("client-models", client_name(client), sees, vector, tuple(found), others)


def _sum_as_gradient(played: Played, total: Vector) -> Vector:
    """A released sum as a sum of gradients: of updates it is one up to sign and scale."""
    plan = played.plan
    if plan.is_gradient_sum:
        return total
    return -total * plan.declared_records / _scale(played)


def _scale(played: Played) -> float:
    """By which local training multiplies a gradient, if it changes little on the way."""
    return played.config.training.learning_rate * played.plan.steps_per_round


def _records(played: Played, clients: tuple[int, ...] | list[int]) -> int:
    return sum(len(played.records[client]) for client in clients)


def _weights(played: Played, weights: dict[str, NDArray[Any]]) -> Vector:
    return to_vector(weights, played.names)


def _clients(count: int) -> str:
    return "one client" if count == 1 else f"{count} clients"
