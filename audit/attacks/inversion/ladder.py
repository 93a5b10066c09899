"""The reference ladder: one picture, from no protection to all of it, at 28x28.

Each rung plays a federation (`federation`), takes what its observer got out of the captured
bytes, and runs the attack that suits the network. Two things favour the attacker throughout: he is
told the labels, and each client holds one record only. Where clients are several, all their records
are searched at once and paired with the truth so that he comes off best (`quality.match`). What is
only about who looks, and not how many contribute, is shown for two clients: the fewest that a key
authority ever releases a sum of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from audit.attacks.inversion import closed_form, fedavg
from audit.attacks.inversion.ciphertexts import PublicKeyHolder, correlation
from audit.attacks.inversion.federation import (
    SIDE,
    Played,
    Reference,
    Scalar,
    local_noise,
    play,
    reference,
    sealed,
)
from audit.attacks.inversion.fedsgd import Observed, gradient_of, invert_piecewise, invert_smooth
from audit.attacks.inversion.quality import match
from audit.attacks.inversion.search import Tick
from audit.evidence import EvidenceStore
from audit.views import client_name, released_integers, restored_sum
from client.dp_sgd import clipped_gradient_sum
from client.node import Node
from client.sealing import integers_to_seal
from shared.models.vector import to_vector
from shared.privacy.noise import SystemNoise
from shared.protocol.arrays import weights_of
from shared.protocol.messages import TrainInstruction
from shared.protocol.sealing import SealingOffer, read_sealed_reply
from simulations.run_folder import RunFolder

Progress = Callable[[str, float], None]
Vector = NDArray[np.float64]

NAME, PICTURES = "inversion", "inversion-pictures"
NOISE_MULTIPLIER = 1.0
LOCAL_STEPS, LOCAL_RECORDS, LOCAL_RATE = 3, 2, 0.1
SUMS = (2, 5, 10)
CANDIDATES = 10
_SEED = 1

_MODELS = {
    "smooth": "audit.attacks.inversion.networks:smooth",
    "fully_connected": "audit.attacks.inversion.networks:fully_connected",
    "cnn": "cnn",
}


@dataclass(frozen=True)
class Attacked:
    """What one rung gave.

    Attributes:
        played: the federation.
        pictures: float (k, 28, 28).
        observed: what the attacker had: kinds and sizes of the captured bytes.
        facts: further figures.
    """

    played: Played
    pictures: torch.Tensor
    observed: list[dict[str, Any]]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Rung:
    """One observer, one kind of protection, one attack.

    Attributes:
        name: key in the evidence.
        view: whose bytes.
        network: smooth, fully_connected or cnn.
        attack: in words.
        clients: in the federation.
        noise: about the noise multiplier; 0 for none.
        sealed: whether updates were encrypted.
        climb: carries it out.
    """

    name: str
    view: str
    network: str
    attack: str
    clients: int
    noise: float
    sealed: bool
    climb: Callable[[Federations, Rung, Tick], Attacked]


class Federations:
    """Plays each federation once, when a rung first asks for it.

    Attributes:
        data: the ladder's pictures.
        released: what was found in released sums, by clients and noise.
    """

    def __init__(self, data: Reference) -> None:
        self.data = data
        self.released: dict[tuple[int, float], torch.Tensor] = {}
        self._play = cache(self._played)

    def of(self, rung: Rung, *, records_each: int = 1, steps: int = 1) -> Played:
        """The federation of this rung."""
        return self._play(rung.network, rung.clients, rung.noise, rung.sealed, records_each, steps)

    def _played(
        self,
        network: str,
        clients: int,
        noise: float,
        is_sealed: bool,
        records_each: int,
        steps: int,
    ) -> Played:
        settings: dict[str, Scalar] = {"model.name": _MODELS[network]}
        if steps > 1:
            settings |= {"training.local_steps": steps, "training.learning_rate": LOCAL_RATE}
        if is_sealed:
            settings |= sealed(clients, noise)
        elif noise:
            settings |= local_noise(noise)
        return play(self.data, settings, clients=clients, records_each=records_each)


def run(folder: RunFolder, store: EvidenceStore, progress: Progress) -> None:
    """Climb the whole ladder and put its pictures into evidence.

    Raises:
        CalyxError: a federation could not be played.
    """
    data = reference(folder.stored_config())
    rows, arrays = climb(data, ladder(), progress)
    store.put_json(NAME, {"source": data.source, "rungs": rows})
    store.put_arrays(PICTURES, arrays)


def climb(
    data: Reference, rungs: Sequence[Rung], progress: Progress
) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
    """Carry out these rungs: what is said of each, and all pictures."""
    federations = Federations(data)
    arrays: dict[str, NDArray[Any]] = {"baseline": data.mean_image}
    rows = []
    for number, rung in enumerate(rungs):

        def tick(share: float, number: int = number) -> None:
            progress(NAME, (number + share) / len(rungs))

        tick(0.0)
        found = rung.climb(federations, rung, tick)
        pictures = found.pictures.double().reshape(-1, SIDE, SIDE).clamp(0, 1).numpy()
        records = np.concatenate([r.features for r in found.played.records])
        truth = records.reshape(-1, SIDE, SIDE)
        arrays[rung.name] = pictures.astype(np.float32)
        arrays[f"{rung.name}-truth"] = truth[match(pictures, truth)].astype(np.float32)
        rows.append(
            {
                "name": rung.name,
                "view": rung.view,
                "network": rung.network,
                "attack": rung.attack,
                "clients": rung.clients,
                "sealed": rung.sealed,
                "noise_multiplier": found.played.plan.noise_multiplier,
                "observed": found.observed,
                "facts": dict(found.facts),
            }
        )
    progress(NAME, 1.0)
    return rows, arrays


def ladder() -> list[Rung]:
    """All rungs, from the bottom."""
    noise, least = NOISE_MULTIPLIER, SUMS[0]
    by_hand, smooth = "closed form of the first layer", "FedSGD inversion, L-BFGS"
    angle = "FedSGD inversion, Adam on the angle"
    rungs = [
        Rung("plain-closed-form", "server", "fully_connected", by_hand, 1, 0, False, _closed_form),
        Rung("plain-smooth", "server", "smooth", smooth, 1, 0, False, _reply),
        Rung("plain-fedavg", "server", "smooth", "FedAvg, unrolled", 1, 0, False, _local_training),
        Rung("plain-cnn", "server", "cnn", angle, 1, 0, False, _reply),
    ]
    rungs += [Rung(f"sum-{n}", "server", "cnn", angle, n, 0, True, _released) for n in SUMS]
    rungs += [
        Rung("noise-closed-form", "server", "fully_connected", by_hand, 1, noise, False,
             _closed_form),
        Rung("noise-smooth", "server", "smooth", smooth, 1, noise, False, _reply),
        Rung("noise-cnn", "server", "cnn", angle, 1, noise, False, _reply),
    ]  # fmt: skip
    rungs += [
        Rung(f"noised-sum-{n}", "server", "cnn", angle, n, noise, True, _released) for n in SUMS
    ]
    return [
        *rungs,
        Rung("sealed-upload", "server", "cnn", angle, least, noise, True, _ciphertext),
        Rung("public-key", "server with the public key", "cnn", angle, least, 0, True, _public_key),
        Rung("authority", "authority", "cnn", angle, least, noise, True, _released),
        Rung("colluding-client", "client 0", "cnn", angle, least, noise, True, _colluding),
    ]


def as_gradient(vector: Vector, played: Played) -> tuple[torch.Tensor, ...]:
    """A flat vector as one tensor for each parameter."""
    parts, start = [], 0
    for parameter in played.model.parameters():
        part = vector[start : start + parameter.numel()]
        parts.append(torch.from_numpy(np.asarray(part)).reshape(parameter.shape))
        start += parameter.numel()
    return tuple(parts)


def contribution(played: Played, client: int) -> NDArray[np.int64]:
    """The integers that a client sealed, made once more as it made them, its noise included.

    Only a client can do this, for its own records and noise; plans of record-level distributed
    noise only.
    """
    (sent,) = played.capture.find("train", 1, receiver=client_name(client))
    instruction = TrainInstruction.from_content(sent.message.content)
    digest = instruction.digest(played.config, weights_of(played.model))
    node = Node(str(client), client, "", played.config.seed, "", "", "")
    noise = node.noise(digest)
    vector, _ = clipped_gradient_sum(played.model, played.records[client], played.plan, noise)
    return integers_to_seal(vector, played.config, played.plan, 1, noise)[0]


def _reply(federations: Federations, rung: Rung, tick: Tick) -> Attacked:
    """The one update that a server without sealing gets."""
    played = federations.of(rung)
    gradient = as_gradient(-_update(played) / played.config.training.learning_rate, played)
    return _inverted(played, rung, gradient, tick, _seen(played, "train"))


def _closed_form(federations: Federations, rung: Rung, tick: Tick) -> Attacked:
    played = federations.of(rung)
    gradient = dict(zip(played.names, as_gradient(-_update(played), played), strict=True))
    names = closed_form.first_layer(played.model, (1, SIDE, SIDE))
    assert names is not None
    pictures = closed_form.layer_inputs(gradient[names[0]], gradient[names[1]], 1)
    tick(1.0)
    return Attacked(played, pictures, _seen(played, "train"), {})


def _local_training(federations: Federations, rung: Rung, tick: Tick) -> Attacked:
    played = federations.of(rung, records_each=LOCAL_RECORDS, steps=LOCAL_STEPS)
    update = as_gradient(_update(played), played)
    pictures = fedavg.invert_training(
        played.model,
        update,
        _labels(played),
        (1, SIDE, SIDE),
        steps=LOCAL_STEPS,
        learning_rate=LOCAL_RATE,
        seed=_SEED,
        tick=tick,
    )
    facts = {"local_steps": LOCAL_STEPS}
    return Attacked(played, pictures, _seen(played, "train"), facts)


def _released(federations: Federations, rung: Rung, tick: Tick) -> Attacked:
    """The sum that the key authority released: server and authority see the same numbers."""
    played = federations.of(rung)
    seen = _seen(played, "release request", "released sum")
    if rung.view == "server":
        seen = [*_seen(played, "train"), *seen]
    key = (rung.clients, rung.noise)
    if key in federations.released:
        # The very same integers: another search would find the same.
        return Attacked(played, federations.released[key], seen, {})
    found = _inverted(played, rung, as_gradient(_mean_gradient(played), played), tick, seen)
    federations.released[key] = found.pictures
    return found


def _ciphertext(federations: Federations, rung: Rung, tick: Tick) -> Attacked:
    """One upload's ciphertexts as numbers."""
    played = federations.of(rung)
    holder, chunks = _holder(played)
    vector = holder.numbers(chunks, _size(played))
    own = restored_sum(contribution(played, 0), played.config, played.plan, 1)
    facts = {"correlation_with_update": correlation(vector, own)}
    alone = _only(played, 0)
    return _inverted(alone, rung, as_gradient(vector, played), tick, _seen(played, "train"), facts)


def _public_key(federations: Federations, rung: Rung, tick: Tick) -> Attacked:
    """Guess and encrypt: does the encryption of the right guess look more like the upload?"""
    played = federations.of(rung)
    holder, chunks = _holder(played)
    size, rate = _size(played), played.config.training.learning_rate
    pictures = torch.from_numpy(federations.data.train[:CANDIDATES].astype(np.float32) / 255)
    truth = played.records[0]
    fits, equal, guess = [], 0, tuple(chunks)
    seen = holder.numbers(chunks, size)
    is_true = [bool(np.allclose(p, truth.features[0, 0], atol=1e-6)) for p in pictures.numpy()]
    for picture in pictures:
        gradient = gradient_of(
            played.model, picture.reshape(1, 1, SIDE, SIDE), torch.from_numpy(truth.labels)
        )
        update = -rate * torch.cat([g.detach().double().flatten() for g in gradient])
        values, _ = integers_to_seal(update.numpy(), played.config, played.plan, 1, SystemNoise())
        guess = holder.encrypt(values)
        equal += sum(a == b for a, b in zip(guess, chunks, strict=True))
        fits.append(abs(correlation(holder.numbers(guess, size), seen)))
        tick(0.5 * len(fits) / len(pictures))
    order = np.argsort(fits)[::-1]
    facts = {
        "candidates": len(fits),
        "equal_ciphertexts": equal,
        "rank_of_truth": 1 + int(np.flatnonzero(order == is_true.index(True))[0]),
        "largest_correlation": max(fits),
        "numbers": size,
    }
    vector = holder.difference(chunks, guess, size)

    def second_half(share: float) -> None:
        tick(0.5 + 0.5 * share)

    seen_bytes = _seen(played, "train", "query.sealing")
    alone = _only(played, 0)
    return _inverted(alone, rung, as_gradient(vector, played), second_half, seen_bytes, facts)


def _colluding(federations: Federations, rung: Rung, tick: Tick) -> Attacked:
    """A client undoes the server's step, and takes its own part out of the sum."""
    played = federations.of(rung)
    start = to_vector(weights_of(played.model), played.names)
    step = start - to_vector(played.final, played.names)
    total = rung.clients * step / played.config.federation.server_learning_rate
    total -= restored_sum(contribution(played, 0), played.config, played.plan, 1)
    others = replace(played, records=played.records[1:])
    gradient = as_gradient(total / len(others.records), played)
    seen = [row for row in _seen(played, "train") if client_name(0) in row.values()]
    return _inverted(others, rung, gradient, tick, seen)


def _inverted(
    played: Played,
    rung: Rung,
    gradient: tuple[torch.Tensor, ...],
    tick: Tick,
    observed: list[dict[str, Any]],
    facts: Mapping[str, Any] | None = None,
) -> Attacked:
    seen = Observed(played.model, gradient, _labels(played), (1, SIDE, SIDE))
    invert = invert_smooth if rung.network == "smooth" else invert_piecewise
    return Attacked(played, invert(seen, _SEED, tick), observed, facts or {})


def _update(played: Played) -> Vector:
    before = to_vector(weights_of(played.model), played.names)
    return to_vector(played.reply(0), played.names) - before


def _mean_gradient(played: Played) -> Vector:
    (crossing,) = played.capture.find("released sum", 1)
    total = restored_sum(released_integers(crossing), played.config, played.plan, 1)
    if not played.plan.is_private:
        # A sum of updates, not of gradients.
        total = -total / played.config.training.learning_rate
    return total / len(played.records)


def _holder(played: Played) -> tuple[PublicKeyHolder, list[bytes]]:
    """The public key as it was sent to client 0, and what client 0 sent back."""
    (offered,) = played.capture.find("query.sealing", 0, receiver=client_name(0))
    offer = SealingOffer.from_content(offered.message.content)
    (reply,) = played.capture.find("train", 1, sender=client_name(0))
    upload, _ = read_sealed_reply(reply.message.content)
    return PublicKeyHolder(offer.parameters, offer.public_context), list(upload.chunks)


def _only(played: Played, client: int) -> Played:
    return replace(played, records=(played.records[client],))


def _labels(played: Played) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([r.labels for r in played.records]))


def _size(played: Played) -> int:
    return sum(p.numel() for p in played.model.parameters())


def _seen(played: Played, *kinds: str) -> list[dict[str, Any]]:
    """Captured bytes of these kinds, added up by sender and receiver."""
    rows = []
    for kind in kinds:
        crossings = [c for c in played.capture.crossings if c.kind == kind]
        rows += [
            {
                "kind": kind,
                "from": c.sender,
                "to": c.receiver,
                "bytes": c.size_bytes,
                "sha256": c.sha256,
            }
            for c in crossings
        ]
    return rows
