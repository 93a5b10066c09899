"""The faults that `audit.mutants` plants: each replaces functions of the real path for one run.

Nothing in the product reaches this module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Patch = tuple[Any, str, Any]

# Few rounds, a narrow clip norm and little noise: faults stand out, and a run takes seconds.
SEALED = (
    "training.rounds=4",
    "federation.clients=4",
    "data.max_records=200",
    "secure_aggregation.min_contributors=2",
    "privacy.epsilon=50",
    "privacy.clip_norm=0.1",
)
SAMPLED = (
    "training.rounds=4",
    "federation.clients=4",
    "data.max_records=400",
    "training.batch_size=16",
    "training.learning_rate=0.1",
    "privacy.noise=local",
    "privacy.sampling=poisson",
    "privacy.epsilon=20",
    "secure_aggregation.scheme=none",
)
# For unit = client the canaries are whole clients.
CLIENTS = (
    "training.rounds=3",
    "federation.clients=4",
    "data.max_records=120",
    "privacy.unit=client",
    "privacy.noise=central",
    "privacy.epsilon=20",
    "secure_aggregation.scheme=none",
)
# Each client protects its whole update by itself.
ALONE = (
    "training.rounds=3",
    "federation.clients=4",
    "data.max_records=120",
    "privacy.unit=client",
    "privacy.noise=local",
    "privacy.epsilon=50",
    "secure_aggregation.scheme=none",
)


@dataclass(frozen=True)
class Mutant:
    """One planted fault.

    Attributes:
        name: what is wrong.
        settings: of the run it is planted in.
        patches: gives (owner, attribute, replacement) of what is replaced.
        forget: figures of accountants that were kept before are not used, and none are kept.
    """

    name: str
    settings: tuple[str, ...]
    patches: Callable[[], list[Patch]]
    forget: bool = False


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Put a mutant's functions in place for a block."""
    before: list[Patch] = []
    kept = _kept_figures() if mutant.forget else []
    for figures in kept:
        figures.cache_clear()
    try:
        for owner, attribute, replacement in mutant.patches():
            before.append((owner, attribute, getattr(owner, attribute)))
            setattr(owner, attribute, replacement)
        yield
    finally:
        for owner, attribute, original in reversed(before):
            setattr(owner, attribute, original)
        for figures in kept:
            figures.cache_clear()


def _kept_figures() -> list[Any]:
    """The caches of plans and accountants."""
    import shared.privacy.accounting as accounting
    import shared.privacy.plan as plan

    found = [value for module in (plan, accounting) for value in vars(module).values()]
    return [value for value in found if hasattr(value, "cache_clear")]


def _scaled_noise(factor: float) -> Callable[[], list[Patch]]:
    def patches() -> list[Patch]:
        from shared.privacy.skellam_mechanism import SkellamMechanism

        real = SkellamMechanism.noise

        def noise(self: Any, generator: np.random.Generator) -> Any:
            return np.rint(factor * real(self, generator)).astype(np.int64)

        return [(SkellamMechanism, "noise", noise)]

    return patches


def _poisoned() -> list[Patch]:
    """One client puts as much into the sum as its fields hold."""
    import client.round as client_round
    from client.node import Node

    real_integers: Any = vars(client_round)["integers_to_seal"]
    real_noise = Node.noise
    turn = {"client": ""}

    def noise(self: Node, digest: str) -> Any:
        turn["client"] = self.name
        return real_noise(self, digest)

    def integers(*arguments: Any) -> Any:
        values, parameters = real_integers(*arguments)
        if turn["client"] == "3":
            values = np.where(values < 0, -parameters.value_bound, parameters.value_bound)
        return values, parameters

    return [(client_round, "integers_to_seal", integers), (Node, "noise", noise)]


def _noise_for_all_clients() -> list[Patch]:
    from shared.privacy.skellam_mechanism import SkellamMechanism

    share = property(lambda self: self.variance / self.contributors)
    return [(SkellamMechanism, "share_variance", share)]


def _no_clip() -> list[Patch]:
    import client.dp_sgd as dp_sgd
    import shared.models.record_gradients as record_gradients

    def ones(norms: torch.Tensor, _: float) -> torch.Tensor:
        return torch.ones_like(norms)

    return [(dp_sgd, "clip_factors", ones), (record_gradients, "clip_factors", ones)]


def _batch_clip() -> list[Patch]:
    """Clip the sum of a batch as if it were one record of its size."""
    import client.dp_sgd as dp_sgd

    real = dp_sgd._clipped_sum

    def whole(
        model: nn.Module, gradients: Any, data: Any, indices: Any, clip_norm: float, *rest: Any
    ) -> Any:
        sums, total = real(model, gradients, data, indices, 1e9, *rest)
        length = float(torch.stack([s.square().sum() for s in sums.values()]).sum().sqrt())
        for each in sums.values():
            each.mul_(min(1.0, clip_norm * len(indices) / max(length, 1e-12)))
        return sums, total

    return [(dp_sgd, "_clipped_sum", whole)]


def _other_norm() -> list[Patch]:
    """The norm is that of the weights' gradients alone, the sum has the biases' too."""
    from shared.models.layer_gradients import OuterProducts

    real = OuterProducts.squared_norms
    return [
        (
            OuterProducts,
            "squared_norms",
            lambda self: real(OuterProducts(self.inputs, self.outputs, self.weights, ())),
        )
    ]


def _reused_seed() -> list[Patch]:
    from client.node import Node

    real = Node.noise
    return [(Node, "noise", lambda self, _: real(self, "always the same"))]


def _reset_accountant() -> list[Patch]:
    """A new accountant each round, as some examples have it."""
    from client.node import Node

    real = Node.ledger

    def fresh(self: Node, records: Any) -> Any:
        for path in Path(self.ledger_path).parent.glob(Path(self.ledger_path).name + "*"):
            path.unlink()
        return real(self, records)

    return [(Node, "ledger", fresh)]


def _shuffled() -> list[Patch]:
    """Shuffled passes over the records, accounted for as Poisson batches."""
    import client.dp_sgd as dp_sgd

    queues: dict[int, list[int]] = {}

    def batch(records: int, plan: Any, noise: Any) -> Any:
        size = round(plan.expected_batch_size)
        queue = queues.setdefault(records, [])
        if len(queue) < size:
            queue += list(noise.generator.permutation(records))
        indices = np.unique(queue[:size])
        del queue[:size]
        return indices

    return [(dp_sgd, "_batch", batch)]


def _wrong_count() -> list[Patch]:
    """A plan for ten times the records there are: a lower sampling rate, so less noise."""
    import server.planning as planning
    from client.policy import Policy

    real: Any = vars(planning)["make_plan"]

    def inflated(config: Any, declared_records: int, sum_shape: Any = None) -> Any:
        plan = real(config, 10 * declared_records, sum_shape)
        return replace(plan, declared_records=declared_records)

    return [(planning, "make_plan", inflated), (Policy, "check", lambda *_: None)]


def _weaker_plan_for_others() -> list[Patch]:
    """Every second client is told of a third of the noise, and none compares plan and terms."""
    from client.ledger import Budget
    from client.policy import Policy
    from client.sealing_terms import SealingTerms
    from server.planning import Plans

    real = Plans.of

    def of(self: Plans, member: Any) -> Any:
        plan = real(self, member)
        if plan.mechanism is None or int(member.client) % 2 == 0:
            return plan
        multiplier = plan.noise_multiplier / 3
        weaker = replace(plan.mechanism, noise_multiplier=multiplier)
        # As wide as before with the noise, so that the sealing parameters are the same.
        weaker = replace(weaker, clamp=plan.mechanism.value_bound - weaker.noise_limit)
        return replace(plan, noise_multiplier=multiplier, mechanism=weaker, target_epsilon=1e4)

    unlimited = property(lambda self: Budget(math.inf, self.privacy.max_delta, "record"))
    return [
        (Plans, "of", of),
        (Policy, "check", lambda *_: None),
        (Policy, "budget", unlimited),
        (SealingTerms, "check", lambda *_: None),
    ]


def _counted_once() -> list[Patch]:
    """A client's update cannot move by more than C if one of its records changes, it is said."""
    from shared.privacy.plan import PrivacyPlan

    return [(PrivacyPlan, "replacement_factor", property(lambda _: 1))]


def _batch_norm() -> list[Patch]:
    """A batch norm in the model, and no check that would refuse it."""
    import audit.attacks.canaries as attack
    import audit.attacks.canary_views as views
    import audit.attacks.gradient_probe as probe
    import audit.mutants as mutants
    import client.dp_sgd as dp_sgd
    import client.round as client_round
    import server.federation as federation

    real: Any = vars(federation)["build_model"]

    def mixing(*arguments: Any) -> nn.Module:
        model: nn.Module = real(*arguments)
        model.add_module("mixing", nn.BatchNorm1d(1, affine=False, track_running_stats=False))
        return model

    def nothing(*_: Any) -> None:
        """Refuses no model."""

    owners: list[Any] = [attack, views, probe, mutants, client_round, federation]
    return [
        *((owner, "build_model", mixing) for owner in owners),
        (dp_sgd, "check_private", nothing),
        (dp_sgd, "try_private", nothing),
    ]


def _share_of(draw: Callable[[np.random.Generator, int, float], Any]) -> Callable[[], list[Patch]]:
    """Shares of another law, of the planned variance: `draw` gets generator, length, deviation."""

    def patches() -> list[Patch]:
        from shared.privacy.skellam_mechanism import SkellamMechanism

        def noise(self: Any, generator: np.random.Generator) -> Any:
            drawn = draw(generator, self.dimension, math.sqrt(self.share_variance))
            return np.rint(drawn).astype(np.int64)

        return [(SkellamMechanism, "noise", noise)]

    return patches


def _coins(generator: np.random.Generator, size: int, deviation: float) -> Any:
    return deviation * (2 * generator.integers(0, 2, size) - 1)


def _uniform(generator: np.random.Generator, size: int, deviation: float) -> Any:
    return math.sqrt(3) * deviation * generator.uniform(-1, 1, size)


def _one_block_without(generator: np.random.Generator, size: int, deviation: float) -> Any:
    drawn = generator.normal(0.0, deviation, size)
    drawn[-size // 32 :] = 0.0
    return drawn


def _twice_in_one_vector(generator: np.random.Generator, size: int, deviation: float) -> Any:
    return np.resize(generator.normal(0.0, deviation, size // 2), size)


def _last_layer_without() -> list[Patch]:
    """DP-SGD noises all but the last weights and biases."""
    from client.dp_sgd import NoisyOptimizer

    real = NoisyOptimizer.add_noise

    def add_noise(self: Any) -> None:
        bare = [parameter.summed_grad.clone() for parameter in self.params[-2:]]
        real(self)
        for parameter, total in zip(self.params[-2:], bare, strict=True):
            parameter.grad = total.to(parameter.dtype)

    return [(NoisyOptimizer, "add_noise", add_noise)]


def _noise_by_turn(key: Callable[[int, str], str]) -> Callable[[], list[Patch]]:
    """Noise keyed by how many instructions a client had before, and perhaps by its name."""

    def patches() -> list[Patch]:
        from client.node import Node
        from shared.privacy.noise import SeededNoise, seeded_key

        turns: dict[str, dict[str, int]] = {}

        def noise(self: Node, digest: str) -> Any:
            own = turns.setdefault(self.name, {})
            turn = own.setdefault(digest, len(own))
            return SeededNoise(seeded_key("planted", key(turn, self.name)))

        return [(Node, "noise", noise)]

    return patches


def _one_without_a_share() -> list[Patch]:
    from client.node import Node
    from shared.privacy.skellam_mechanism import SkellamMechanism

    real_noise, real_share = Node.noise, SkellamMechanism.noise
    turn = {"client": ""}

    def noise(self: Node, digest: str) -> Any:
        turn["client"] = self.name
        return real_noise(self, digest)

    def share(self: Any, generator: np.random.Generator) -> Any:
        drawn = real_share(self, generator)
        return np.zeros_like(drawn) if turn["client"] == "1" else drawn

    return [(Node, "noise", noise), (SkellamMechanism, "noise", share)]


def _double_clip() -> list[Patch]:
    import client.dp_sgd as dp_sgd
    import shared.models.record_gradients as record_gradients

    real = record_gradients.clip_factors

    def looser(norms: torch.Tensor, clip_norm: float) -> torch.Tensor:
        return real(norms, 2 * clip_norm)

    return [(dp_sgd, "clip_factors", looser), (record_gradients, "clip_factors", looser)]


def _rounded(
    round_: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> Callable[[], list[Patch]]:
    """Rounding without a secret draw."""

    def patches() -> list[Patch]:
        import client.sealing as sealing

        def rounding(scaled: NDArray[np.float64], _: np.random.Generator) -> Any:
            return round_(scaled).astype(np.int64)

        return [(sealing, "dithered_rounding", rounding)]

    return patches


def _public_dither(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.floor(scaled + np.random.default_rng(7).random(scaled.shape))


def _no_clamp() -> list[Patch]:
    from shared.encryption.quantise import Grid

    return [(Grid, "scaled", lambda self, x: x.astype(np.float64) / self.step)]


def _other_batch() -> list[Patch]:
    """As many records as were drawn enter the model, but always the first ones."""
    import client.dp_sgd as dp_sgd

    real: Any = vars(dp_sgd)["batch_tensors"]

    def first(data: Any, indices: Any, device: Any) -> Any:
        return real(data, np.arange(len(indices)), device)

    return [(dp_sgd, "batch_tensors", first)]


def _drawn(change: Callable[[Any, int, Any, Any], Any]) -> Callable[[], list[Patch]]:
    """Batches made by `change` of the real function, records, plan and noise."""

    def patches() -> list[Patch]:
        import client.dp_sgd as dp_sgd

        real = dp_sgd._batch
        return [(dp_sgd, "_batch", lambda *arguments: change(real, *arguments))]

    return patches


def _double_rate(real: Any, records: int, plan: Any, noise: Any) -> Any:
    return real(records, replace(plan, sampling_rate=min(1.0, 2 * plan.sampling_rate)), noise)


def _one_record_twice(real: Any, records: int, plan: Any, noise: Any) -> Any:
    indices = real(records, plan, noise)
    return np.concatenate([indices[:1], indices])


def _half_epsilon() -> list[Patch]:
    """Both accountants say half; whoever plans, charges or reports believes them."""
    import shared.privacy.accounting as accounting

    pld, rdp = accounting._pld_epsilon, accounting._rdp_epsilon
    return [
        (accounting, "_pld_epsilon", lambda *arguments: pld(*arguments) / 2),
        (accounting, "_rdp_epsilon", lambda *arguments: rdp(*arguments) / 2),
    ]


def _half_rdp() -> list[Patch]:
    """The Rényi bound of integer noise is a quarter: half of epsilon and less."""
    from shared.privacy.skellam_mechanism import SkellamMechanism

    real = SkellamMechanism.rdp
    return [
        (
            SkellamMechanism,
            "rdp",
            lambda self, rate=1.0, *, shift=1: real(self, rate, shift=shift) / 4,
        )
    ]


def _gaussian_times(factor: float, where: str) -> Callable[[], list[Patch]]:
    """Gaussian noise of another size in one module alone: for clients, or at the server."""

    def patches() -> list[Patch]:
        import client.round as client_round
        import server.federation as federation

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


MUTANTS = (
    Mutant("no noise", SEALED, _scaled_noise(0.0)),
    Mutant("half the noise", SEALED, _scaled_noise(0.5)),
    Mutant("no clipping", SEALED, _no_clip),
    Mutant("the batch clipped as a whole", SEALED, _batch_clip),
    Mutant("clipped by the norm of something else", SEALED, _other_norm),
    Mutant("the same noise every round", SEALED, _reused_seed),
    Mutant("a new accountant every round", SEALED, _reset_accountant),
    Mutant("shuffled batches called Poisson", SAMPLED, _shuffled),
    Mutant("a wrong number of records", SAMPLED, _wrong_count),
    Mutant("noise divided by all clients", SEALED, _noise_for_all_clients),
    Mutant("a weaker plan for other clients", SEALED, _weaker_plan_for_others),
    Mutant("batch norm", SEALED, _batch_norm),
    Mutant("a client that poisons", SEALED, _poisoned),
    Mutant("a client's rounds counted once for a record", CLIENTS, _counted_once),
    Mutant("coins of the right size for noise", SEALED, _share_of(_coins)),
    Mutant("uniform noise of the right size", SEALED, _share_of(_uniform)),
    Mutant("one block of a sum without noise", SEALED, _share_of(_one_block_without)),
    Mutant("the same noise in both halves", SEALED, _share_of(_twice_in_one_vector)),
    Mutant("the last layer without noise", SAMPLED, _last_layer_without),
    Mutant(
        "the same noise in every second round",
        SEALED,
        _noise_by_turn(lambda turn, name: f"{name}/{turn % 2}"),
    ),
    Mutant(
        "noise from a seed that is the round's number",
        SEALED,
        _noise_by_turn(lambda turn, _: str(turn)),
    ),
    Mutant("one client without a share of the noise", SEALED, _one_without_a_share),
    Mutant("twice the clip norm", SEALED, _double_clip),
    Mutant("rounding to the nearest step", SEALED, _rounded(np.rint)),
    Mutant("a dither that everybody knows", SEALED, _rounded(_public_dither)),
    Mutant("no clamp", SEALED, _no_clamp),
    Mutant("a batch drawn and another one used", SAMPLED, _other_batch),
    Mutant("twice the sampling rate", SAMPLED, _drawn(_double_rate)),
    Mutant("one record twice in every batch", SAMPLED, _drawn(_one_record_twice)),
    Mutant("accountants that say half", SAMPLED, _half_epsilon, forget=True),
    Mutant("a Rényi bound that says half", SEALED, _half_rdp, forget=True),
    Mutant("clients' updates without noise", ALONE, _gaussian_times(0.0, "clients")),
    Mutant("clients' updates with half the noise", ALONE, _gaussian_times(0.5, "clients")),
    Mutant("the server's noise halved", CLIENTS, _gaussian_times(0.5, "server")),
)
