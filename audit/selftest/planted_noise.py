"""Faults of the noise and of rounding, for `calyx.audit.selftest.planted_faults`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calyx.audit.selftest.planting import Patch


def scaled_noise(factor: float) -> Callable[[], list[Patch]]:
    def patches() -> list[Patch]:
        from calyx.shared.privacy.skellam_mechanism import SkellamMechanism

        real = SkellamMechanism.noise

        def noise(self: Any, generator: np.random.Generator) -> Any:
            return np.rint(factor * real(self, generator)).astype(np.int64)

        return [(SkellamMechanism, "noise", noise)]

    return patches


def noise_for_all_clients() -> list[Patch]:
    from calyx.shared.privacy.skellam_mechanism import SkellamMechanism

    share = property(lambda self: self.variance / self.contributors)
    return [(SkellamMechanism, "share_variance", share)]


def reused_seed() -> list[Patch]:
    from calyx.client.node import Node

    real = Node.noise
    return [(Node, "noise", lambda self, _: real(self, "always the same"))]


def share_of(draw: Callable[[np.random.Generator, int, float], Any]) -> Callable[[], list[Patch]]:
    """Shares of another law, of the planned variance: `draw` gets generator, length, deviation."""

    def patches() -> list[Patch]:
        from calyx.shared.privacy.skellam_mechanism import SkellamMechanism

        def noise(self: Any, generator: np.random.Generator) -> Any:
            drawn = draw(generator, self.dimension, math.sqrt(self.share_variance))
            return np.rint(drawn).astype(np.int64)

        return [(SkellamMechanism, "noise", noise)]

    return patches


def coins(generator: np.random.Generator, size: int, deviation: float) -> Any:
    return deviation * (2 * generator.integers(0, 2, size) - 1)


def uniform(generator: np.random.Generator, size: int, deviation: float) -> Any:
    return math.sqrt(3) * deviation * generator.uniform(-1, 1, size)


def one_block_without(generator: np.random.Generator, size: int, deviation: float) -> Any:
    drawn = generator.normal(0.0, deviation, size)
    drawn[-size // 32 :] = 0.0
    return drawn


def twice_in_one_vector(generator: np.random.Generator, size: int, deviation: float) -> Any:
    return np.resize(generator.normal(0.0, deviation, size // 2), size)


def last_layer_without() -> list[Patch]:
    """DP-SGD noises all but the last weights and biases."""
    from calyx.client.training.dp_sgd import NoisyOptimizer

    real = NoisyOptimizer.add_noise

    def add_noise(self: Any) -> None:
        bare = [parameter.summed_grad.clone() for parameter in self.params[-2:]]
        real(self)
        for parameter, total in zip(self.params[-2:], bare, strict=True):
            parameter.grad = total.to(parameter.dtype)

    return [(NoisyOptimizer, "add_noise", add_noise)]


def noise_by_turn(key: Callable[[int, str], str]) -> Callable[[], list[Patch]]:
    """Noise keyed by how many instructions a client had before, and perhaps by its name."""

    def patches() -> list[Patch]:
        from calyx.client.node import Node
        from calyx.shared.privacy.noise import SeededNoise, seeded_key

        turns: dict[str, dict[str, int]] = {}

        def noise(self: Node, digest: str) -> Any:
            own = turns.setdefault(self.name, {})
            turn = own.setdefault(digest, len(own))
            return SeededNoise(seeded_key("planted", key(turn, self.name)))

        return [(Node, "noise", noise)]

    return patches


def one_without_a_share() -> list[Patch]:
    from calyx.client.node import Node
    from calyx.shared.privacy.skellam_mechanism import SkellamMechanism

    real_noise, real_share = Node.noise, SkellamMechanism.noise
    turn = {"client": ""}

    def noise(self: Node, digest: str) -> Any:
        turn["client"] = self.name
        return real_noise(self, digest)

    def share(self: Any, generator: np.random.Generator) -> Any:
        drawn = real_share(self, generator)
        return np.zeros_like(drawn) if turn["client"] == "1" else drawn

    return [(Node, "noise", noise), (SkellamMechanism, "noise", share)]


def rounded(
    round_: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> Callable[[], list[Patch]]:
    """Rounding without a secret draw."""

    def patches() -> list[Patch]:
        import calyx.client.sealing.sealing as sealing

        def rounding(scaled: NDArray[np.float64], _: np.random.Generator) -> Any:
            return round_(scaled).astype(np.int64)

        return [(sealing, "dithered_rounding", rounding)]

    return patches


def public_dither(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.floor(scaled + np.random.default_rng(7).random(scaled.shape))


def no_clamp() -> list[Patch]:
    from calyx.shared.encryption.quantise import IntegerGrid

    return [(IntegerGrid, "scaled", lambda self, x: x.astype(np.float64) / self.step)]


def gaussian_times(factor: float, where: str) -> Callable[[], list[Patch]]:
    """Gaussian noise of another size in one module alone: for clients, or at the server."""

    def patches() -> list[Patch]:
        import calyx.client.round as client_round
        import calyx.server.federation as federation

        class Scaled:
            def __init__(self, source: Any) -> None:
                self._source = source

            def gaussian(self, shape: tuple[int, ...], std: float) -> torch.Tensor:
                drawn: torch.Tensor = self._source.gaussian(shape, std)
                return factor * drawn

        if where == "server":
            owner: Any = federation.Federation
            real = owner._central_noise
            return [(owner, "_central_noise", lambda self, number: Scaled(real(self, number)))]
        protect: Any = vars(client_round)["protect_update"]

        def weaker(before: Any, after: Any, plan: Any, noise: Any) -> Any:
            return protect(before, after, plan, Scaled(noise))

        return [(client_round, "protect_update", weaker)]

    return patches
