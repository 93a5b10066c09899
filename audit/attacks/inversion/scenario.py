"""One rung of the ladder: an observer, what he got, and the attack that suits it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch

from calyx.audit.attacks.inversion import closed_form, fedavg
from calyx.audit.attacks.inversion.ciphertexts import correlation
from calyx.audit.attacks.inversion.estimates import (
    as_gradient,
    contribution,
    mean_gradient,
    sealed_upload,
    update_in_clear,
)
from calyx.audit.attacks.inversion.fedsgd import (
    Observed,
    gradient_of,
    invert_piecewise,
    invert_smooth,
)
from calyx.audit.attacks.inversion.reference_federation import (
    SIDE,
    Played,
    Reference,
    Scalar,
    local_noise,
    play,
    sealed,
)
from calyx.audit.progress import Tick
from calyx.audit.replay.capture import client_name, restored_sum
from calyx.client.sealing.sealing import integers_to_seal
from calyx.shared.models.vector import to_vector
from calyx.shared.privacy.noise import SystemNoise
from calyx.shared.protocol.arrays import weights_of

LOCAL_STEPS, LOCAL_RECORDS, LOCAL_RATE = 3, 2, 0.1
CANDIDATES = 10
_SEED = 1

_MODELS = {
    "smooth": "calyx.audit.attacks.inversion.networks:smooth",
    "fully_connected": "calyx.audit.attacks.inversion.networks:fully_connected",
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
        climb: carries it out.
        clients: in the federation.
        noise: about the noise multiplier; 0 for none.
        sealed: whether updates were encrypted.
    """

    name: str
    view: str
    network: str
    attack: str
    climb: Callable[[Federations, Rung, Tick], Attacked]
    clients: int = 1
    noise: float = 0.0
    sealed: bool = False


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


def from_update(federations: Federations, rung: Rung, tick: Tick) -> Attacked:
    """The one update that a server without sealing gets."""
    played = federations.of(rung)
    gradient = as_gradient(-update_in_clear(played) / played.config.training.learning_rate, played)
    return _inverted(played, rung, gradient, tick, _seen(played, "train"))


def from_first_layer(federations: Federations, rung: Rung, tick: Tick) -> Attacked:
    """The update of a network whose first layer gives its inputs away."""
    played = federations.of(rung)
    gradient = dict(zip(played.names, as_gradient(-update_in_clear(played), played), strict=True))
    names = closed_form.first_layer(played.model, (1, SIDE, SIDE))
    assert names is not None
    pictures = closed_form.layer_inputs(gradient[names[0]], gradient[names[1]], 1)
    tick(1.0)
    return Attacked(played, pictures, _seen(played, "train"), {})


def from_local_training(federations: Federations, rung: Rung, tick: Tick) -> Attacked:
    """An update after several local steps."""
    played = federations.of(rung, records_each=LOCAL_RECORDS, steps=LOCAL_STEPS)
    update = as_gradient(update_in_clear(played), played)
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


def from_released_sum(federations: Federations, rung: Rung, tick: Tick) -> Attacked:
    """The sum that the key authority released: server and authority see the same numbers."""
    played = federations.of(rung)
    seen = _seen(played, "release request", "released sum")
    if rung.view == "server":
        seen = [*_seen(played, "train"), *seen]
    key = (rung.clients, rung.noise)
    if key in federations.released:
        # The very same integers: another search would find the same.
        return Attacked(played, federations.released[key], seen, {})
    found = _inverted(played, rung, as_gradient(mean_gradient(played), played), tick, seen)
    federations.released[key] = found.pictures
    return found


def from_ciphertext(federations: Federations, rung: Rung, tick: Tick) -> Attacked:
    """One upload's ciphertexts as numbers."""
    played = federations.of(rung)
    holder, chunks = sealed_upload(played)
    vector = holder.numbers(chunks, _size(played))
    own = restored_sum(contribution(played, 0), played.config, played.plan, 1)
    facts = {"correlation_with_update": correlation(vector, own)}
    alone = _only(played, 0)
    return _inverted(alone, rung, as_gradient(vector, played), tick, _seen(played, "train"), facts)


def from_public_key(federations: Federations, rung: Rung, tick: Tick) -> Attacked:
    """Guess and encrypt: does the encryption of the right guess look more like the upload?"""
    played = federations.of(rung)
    holder, chunks = sealed_upload(played)
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


def from_two_models(federations: Federations, rung: Rung, tick: Tick) -> Attacked:
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
