"""One scenario: an observer, what it received, and the attack that suits it."""

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
    CapturedRound,
    Reference,
    Scalar,
    capture_round,
    local_noise,
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
    """The result of one scenario.

    Attributes:
        captured: the federation.
        pictures: float (k, 28, 28).
        observed: what the attacker had: kinds and sizes of the captured bytes.
        facts: further figures.
    """

    captured: CapturedRound
    pictures: torch.Tensor
    observed: list[dict[str, Any]]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Scenario:
    """One observer, one kind of protection, one attack.

    Attributes:
        name: key in the evidence.
        view: the observer whose bytes are attacked.
        network: smooth, fully_connected or cnn.
        attack: in words.
        run: carries it out.
        clients: in the federation.
        noise: approximately the noise multiplier; 0 for none.
        sealed: whether updates were encrypted.
    """

    name: str
    view: str
    network: str
    attack: str
    run: Callable[[Federations, Scenario, Tick], Attacked]
    clients: int = 1
    noise: float = 0.0
    sealed: bool = False


class Federations:
    """Runs each federation once, when a scenario first asks for it.

    Attributes:
        data: the scenarios' pictures.
        released: what was found in released sums, by clients and noise.
    """

    def __init__(self, data: Reference) -> None:
        self.data = data
        self.released: dict[tuple[int, float], torch.Tensor] = {}
        self._federation = cache(self._captured)

    def of(self, scenario: Scenario, *, records_each: int = 1, steps: int = 1) -> CapturedRound:
        """The federation of this scenario."""
        return self._federation(
            scenario.network, scenario.clients, scenario.noise, scenario.sealed, records_each, steps
        )

    def _captured(
        self,
        network: str,
        clients: int,
        noise: float,
        is_sealed: bool,
        records_each: int,
        steps: int,
    ) -> CapturedRound:
        settings: dict[str, Scalar] = {"model.name": _MODELS[network]}
        if steps > 1:
            settings |= {"training.local_steps": steps, "training.learning_rate": LOCAL_RATE}
        if is_sealed:
            settings |= sealed(clients, noise)
        elif noise:
            settings |= local_noise(noise)
        return capture_round(self.data, settings, clients=clients, records_each=records_each)


def from_update(federations: Federations, scenario: Scenario, tick: Tick) -> Attacked:
    """The one update that a server without sealing gets."""
    captured = federations.of(scenario)
    gradient = as_gradient(
        -update_in_clear(captured) / captured.config.training.learning_rate, captured
    )
    return _inverted(captured, scenario, gradient, tick, _seen(captured, "train"))


def from_first_layer(federations: Federations, scenario: Scenario, tick: Tick) -> Attacked:
    """The update of a network whose first layer reveals its inputs."""
    captured = federations.of(scenario)
    gradient = dict(
        zip(captured.names, as_gradient(-update_in_clear(captured), captured), strict=True)
    )
    names = closed_form.first_layer(captured.model, (1, SIDE, SIDE))
    assert names is not None
    pictures = closed_form.layer_inputs(gradient[names[0]], gradient[names[1]], 1)
    tick(1.0)
    return Attacked(captured, pictures, _seen(captured, "train"), {})


def from_local_training(federations: Federations, scenario: Scenario, tick: Tick) -> Attacked:
    """An update after several local steps."""
    captured = federations.of(scenario, records_each=LOCAL_RECORDS, steps=LOCAL_STEPS)
    update = as_gradient(update_in_clear(captured), captured)
    pictures = fedavg.invert_training(
        captured.model,
        update,
        _labels(captured),
        (1, SIDE, SIDE),
        steps=LOCAL_STEPS,
        learning_rate=LOCAL_RATE,
        seed=_SEED,
        tick=tick,
    )
    facts = {"local_steps": LOCAL_STEPS}
    return Attacked(captured, pictures, _seen(captured, "train"), facts)


def from_released_sum(federations: Federations, scenario: Scenario, tick: Tick) -> Attacked:
    """The sum that the key authority released: server and authority see the same numbers."""
    captured = federations.of(scenario)
    seen = _seen(captured, "release request", "released sum")
    if scenario.view == "server":
        seen = [*_seen(captured, "train"), *seen]
    key = (scenario.clients, scenario.noise)
    if key in federations.released:
        # Exactly the same integers: another search would find the same.
        return Attacked(captured, federations.released[key], seen, {})
    found = _inverted(
        captured, scenario, as_gradient(mean_gradient(captured), captured), tick, seen
    )
    federations.released[key] = found.pictures
    return found


def from_ciphertext(federations: Federations, scenario: Scenario, tick: Tick) -> Attacked:
    """One upload's ciphertexts as numbers."""
    captured = federations.of(scenario)
    holder, chunks = sealed_upload(captured)
    vector = holder.numbers(chunks, _size(captured))
    own = restored_sum(contribution(captured, 0), captured.config, captured.plan, 1)
    facts = {"correlation_with_update": correlation(vector, own)}
    alone = _only(captured, 0)
    return _inverted(
        alone, scenario, as_gradient(vector, captured), tick, _seen(captured, "train"), facts
    )


def from_public_key(federations: Federations, scenario: Scenario, tick: Tick) -> Attacked:
    """Guess and encrypt: does the encryption of the right guess look more like the upload?"""
    captured = federations.of(scenario)
    holder, chunks = sealed_upload(captured)
    size, rate = _size(captured), captured.config.training.learning_rate
    pictures = torch.from_numpy(federations.data.train[:CANDIDATES].astype(np.float32) / 255)
    truth = captured.records[0]
    fits, equal, guess = [], 0, tuple(chunks)
    seen = holder.numbers(chunks, size)
    is_true = [bool(np.allclose(p, truth.features[0, 0], atol=1e-6)) for p in pictures.numpy()]
    for picture in pictures:
        gradient = gradient_of(
            captured.model, picture.reshape(1, 1, SIDE, SIDE), torch.from_numpy(truth.labels)
        )
        update = -rate * torch.cat([g.detach().double().flatten() for g in gradient])
        values, _ = integers_to_seal(
            update.numpy(), captured.config, captured.plan, 1, SystemNoise()
        )
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

    seen_bytes = _seen(captured, "train", "query.sealing")
    alone = _only(captured, 0)
    return _inverted(alone, scenario, as_gradient(vector, captured), second_half, seen_bytes, facts)


def from_two_models(federations: Federations, scenario: Scenario, tick: Tick) -> Attacked:
    """A client undoes the server's step, and takes its own part out of the sum."""
    captured = federations.of(scenario)
    start = to_vector(weights_of(captured.model), captured.names)
    step = start - to_vector(captured.final, captured.names)
    total = scenario.clients * step / captured.config.federation.server_learning_rate
    total -= restored_sum(contribution(captured, 0), captured.config, captured.plan, 1)
    others = replace(captured, records=captured.records[1:])
    gradient = as_gradient(total / len(others.records), captured)
    seen = [row for row in _seen(captured, "train") if client_name(0) in row.values()]
    return _inverted(others, scenario, gradient, tick, seen)


def _inverted(
    captured: CapturedRound,
    scenario: Scenario,
    gradient: tuple[torch.Tensor, ...],
    tick: Tick,
    observed: list[dict[str, Any]],
    facts: Mapping[str, Any] | None = None,
) -> Attacked:
    seen = Observed(captured.model, gradient, _labels(captured), (1, SIDE, SIDE))
    invert = invert_smooth if scenario.network == "smooth" else invert_piecewise
    return Attacked(captured, invert(seen, _SEED, tick), observed, facts or {})


def _only(captured: CapturedRound, client: int) -> CapturedRound:
    return replace(captured, records=(captured.records[client],))


def _labels(captured: CapturedRound) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([r.labels for r in captured.records]))


def _size(captured: CapturedRound) -> int:
    return sum(p.numel() for p in captured.model.parameters())


def _seen(captured: CapturedRound, *kinds: str) -> list[dict[str, Any]]:
    """Captured bytes of these kinds, added up by sender and receiver."""
    rows = []
    for kind in kinds:
        messages = [c for c in captured.capture.messages if c.kind == kind]
        rows += [
            {
                "kind": kind,
                "from": c.sender,
                "to": c.receiver,
                "bytes": c.size_bytes,
                "sha256": c.sha256,
            }
            for c in messages
        ]
    return rows
