"""The faults that `calyx.audit.selftest.mutants` plants: each replaces functions for a run.

Faults of noise and rounding are in `calyx.audit.selftest.planted_noise`. Nothing in the product
reaches them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from calyx.audit.selftest.planted_noise import (
    coins,
    gaussian_times,
    last_layer_without,
    no_clamp,
    noise_by_turn,
    noise_for_all_clients,
    one_block_without,
    one_without_a_share,
    public_dither,
    reused_seed,
    rounded,
    scaled_noise,
    share_of,
    twice_in_one_vector,
    uniform,
)
from calyx.audit.selftest.planting import ALONE, CLIENTS, SAMPLED, SEALED, Mutant, Patch


def _poisoned() -> list[Patch]:
    """One client puts as much into the sum as its fields hold."""
    import calyx.client.round as client_round
    from calyx.client.node import Node

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


def _no_clip() -> list[Patch]:
    import calyx.client.training.dp_sgd as dp_sgd
    import calyx.shared.models.per_record.gradients as record_gradients

    def ones(norms: torch.Tensor, _: float) -> torch.Tensor:
        return torch.ones_like(norms)

    return [(dp_sgd, "clip_factors", ones), (record_gradients, "clip_factors", ones)]


def _batch_clip() -> list[Patch]:
    """Clip the sum of a batch as if it were one record of its size."""
    import calyx.client.training.dp_sgd as dp_sgd

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
    from calyx.shared.models.per_record.layer_gradients import OuterProducts

    real = OuterProducts.squared_norms
    return [
        (
            OuterProducts,
            "squared_norms",
            lambda self: real(OuterProducts(self.inputs, self.outputs, self.weights, ())),
        )
    ]


def _reset_accountant() -> list[Patch]:
    """A new accountant each round, as in some examples."""
    from calyx.client.node import Node

    real = Node.ledger

    def fresh(self: Node, records: Any) -> Any:
        for path in Path(self.ledger_path).parent.glob(Path(self.ledger_path).name + "*"):
            path.unlink()
        return real(self, records)

    return [(Node, "ledger", fresh)]


def _shuffled() -> list[Patch]:
    """Shuffled passes over the records, accounted for as Poisson batches."""
    import calyx.client.training.dp_sgd as dp_sgd

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
    """A plan for ten times the actual records: a lower sampling rate, so less noise."""
    import calyx.server.round.plans as plans
    from calyx.client.policy import Policy

    real: Any = vars(plans)["make_plan"]

    def inflated(config: Any, declared_records: int, sum_shape: Any = None) -> Any:
        plan = real(config, 10 * declared_records, sum_shape)
        return replace(plan, declared_records=declared_records)

    return [(plans, "make_plan", inflated), (Policy, "check", lambda *_: None)]


def _weaker_plan_for_others() -> list[Patch]:
    """Every second client's plan has a third of the noise, and none compares plan and terms."""
    from calyx.client.ledger.ledger import Budget
    from calyx.client.policy import Policy
    from calyx.client.sealing.terms import SealingTerms
    from calyx.server.round.plans import Plans

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
    """It is claimed that a client's update moves by at most C if one of its records changes."""
    from calyx.shared.privacy.plan import PrivacyPlan

    return [(PrivacyPlan, "replacement_factor", property(lambda _: 1))]


def _batch_norm() -> list[Patch]:
    """A batch norm in the model, and no check that would refuse it."""
    import calyx.audit.attacks.canaries.observers as observers
    import calyx.audit.attacks.canaries.record as record
    import calyx.audit.attacks.noise.gradient_probe as probe
    import calyx.audit.selftest.examination as examination
    import calyx.client.round as client_round
    import calyx.client.training.dp_sgd as dp_sgd
    import calyx.server.federation as federation

    real: Any = vars(federation)["build_model"]

    def mixing(*arguments: Any) -> nn.Module:
        model: nn.Module = real(*arguments)
        model.add_module("mixing", nn.BatchNorm1d(1, affine=False, track_running_stats=False))
        return model

    def nothing(*_: Any) -> None:
        """Refuses no model."""

    owners: list[Any] = [record, observers, probe, examination, client_round, federation]
    return [
        *((owner, "build_model", mixing) for owner in owners),
        (dp_sgd, "check_private", nothing),
        (dp_sgd, "try_private", nothing),
    ]


def _double_clip() -> list[Patch]:
    import calyx.client.training.dp_sgd as dp_sgd
    import calyx.shared.models.per_record.gradients as record_gradients

    real = record_gradients.clip_factors

    def looser(norms: torch.Tensor, clip_norm: float) -> torch.Tensor:
        return real(norms, 2 * clip_norm)

    return [(dp_sgd, "clip_factors", looser), (record_gradients, "clip_factors", looser)]


def _other_batch() -> list[Patch]:
    """The model gets as many records as were drawn, but always the first ones."""
    import calyx.client.training.dp_sgd as dp_sgd

    real: Any = vars(dp_sgd)["batch_tensors"]

    def first(data: Any, indices: Any, device: Any) -> Any:
        return real(data, np.arange(len(indices)), device)

    return [(dp_sgd, "batch_tensors", first)]


def _drawn(change: Callable[[Any, int, Any, Any], Any]) -> Callable[[], list[Patch]]:
    """Batches made by `change` of the real function, records, plan and noise."""

    def patches() -> list[Patch]:
        import calyx.client.training.dp_sgd as dp_sgd

        real = dp_sgd._batch
        return [(dp_sgd, "_batch", lambda *arguments: change(real, *arguments))]

    return patches


def _double_rate(real: Any, records: int, plan: Any, noise: Any) -> Any:
    return real(records, replace(plan, sampling_rate=min(1.0, 2 * plan.sampling_rate)), noise)


def _one_record_twice(real: Any, records: int, plan: Any, noise: Any) -> Any:
    indices = real(records, plan, noise)
    return np.concatenate([indices[:1], indices])


def _half_epsilon() -> list[Patch]:
    """Both accountants say half; all code that plans, charges or reports relies on them."""
    import calyx.shared.privacy.accounting as accounting

    pld, rdp = accounting._pld_epsilon, accounting._rdp_epsilon
    return [
        (accounting, "_pld_epsilon", lambda *arguments: pld(*arguments) / 2),
        (accounting, "_rdp_epsilon", lambda *arguments: rdp(*arguments) / 2),
    ]


def _half_rdp() -> list[Patch]:
    """The Rényi bound of integer noise is a quarter: half of epsilon and less."""
    from calyx.shared.privacy.skellam_mechanism import SkellamMechanism

    real = SkellamMechanism.rdp
    return [
        (
            SkellamMechanism,
            "rdp",
            lambda self, rate=1.0, *, shift=1: real(self, rate, shift=shift) / 4,
        )
    ]


MUTANTS = (
    Mutant("no noise", SEALED, scaled_noise(0.0)),
    Mutant("half the noise", SEALED, scaled_noise(0.5)),
    Mutant("no clipping", SEALED, _no_clip),
    Mutant("the batch clipped as a whole", SEALED, _batch_clip),
    Mutant("clipped by the norm of something else", SEALED, _other_norm),
    Mutant("the same noise every round", SEALED, reused_seed),
    Mutant("a new accountant every round", SEALED, _reset_accountant),
    Mutant("shuffled batches called Poisson", SAMPLED, _shuffled),
    Mutant("a wrong number of records", SAMPLED, _wrong_count),
    Mutant("noise divided by all clients", SEALED, noise_for_all_clients),
    Mutant("a weaker plan for other clients", SEALED, _weaker_plan_for_others),
    Mutant("batch norm", SEALED, _batch_norm),
    Mutant("a client that poisons", SEALED, _poisoned),
    Mutant("a client's rounds counted once for a record", CLIENTS, _counted_once),
    Mutant("coins of the right size for noise", SEALED, share_of(coins)),
    Mutant("uniform noise of the right size", SEALED, share_of(uniform)),
    Mutant("one block of a sum without noise", SEALED, share_of(one_block_without)),
    Mutant("the same noise in both halves", SEALED, share_of(twice_in_one_vector)),
    Mutant("the last layer without noise", SAMPLED, last_layer_without),
    Mutant(
        "the same noise in every second round",
        SEALED,
        noise_by_turn(lambda turn, name: f"{name}/{turn % 2}"),
    ),
    Mutant(
        "noise from a seed that is the round's number",
        SEALED,
        noise_by_turn(lambda turn, _: str(turn)),
    ),
    Mutant("one client without a share of the noise", SEALED, one_without_a_share),
    Mutant("twice the clip norm", SEALED, _double_clip),
    Mutant("rounding to the nearest step", SEALED, rounded(np.rint)),
    Mutant("a dither that everybody knows", SEALED, rounded(public_dither)),
    Mutant("no clamp", SEALED, no_clamp),
    Mutant("a batch drawn and another one used", SAMPLED, _other_batch),
    Mutant("twice the sampling rate", SAMPLED, _drawn(_double_rate)),
    Mutant("one record twice in every batch", SAMPLED, _drawn(_one_record_twice)),
    Mutant("accountants that say half", SAMPLED, _half_epsilon, forget=True),
    Mutant("a Rényi bound that says half", SEALED, _half_rdp, forget=True),
    Mutant("clients' updates without noise", ALONE, gaussian_times(0.0, "clients")),
    Mutant("clients' updates with half the noise", ALONE, gaussian_times(0.5, "clients")),
    Mutant("the server's noise halved", CLIENTS, gaussian_times(0.5, "server")),
)
