"""Planted faults: would this audit find out if the training were wrong?

Each mutant replaces one function of the real path while a small run, and its repetition with
canaries, are carried out in this process. The whole auditor then looks at what the run left behind.
A mutant that raises no flag is a fault that the audit would miss; a flag on a clean run is a false
alarm. Nothing in the product reaches this module.

With 20 clean runs the chance of any false alarm is below 3 %: each run is held to `NOISE_LEVEL`
four times, or to that and the sampling tests' `FALSE_ALARM_RATE` of one in a thousand.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from audit.attacks import canaries
from audit.audited_run import AuditedRun
from audit.evidence import EvidenceStore
from audit.findings import agreement, sampling
from audit.findings import canaries as canary_finding
from audit.findings.canaries import CanarySection
from audit.findings.client_canaries import ClientCanarySection
from shared.errors import ModelError, RoundError
from shared.models import build_model
from shared.models.private import check_private
from simulations import run as simulate
from simulations.run_folder import RunFolder

Progress = Callable[[str, float], None]
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
CANARIES = 200
CLEAN_RUNS = 20


@dataclass(frozen=True)
class Mutant:
    """One planted fault.

    Attributes:
        name: what is wrong.
        settings: of the run it is planted in.
        patches: gives (owner, attribute, replacement) of what is replaced.
    """

    name: str
    settings: tuple[str, ...]
    patches: Callable[[], list[Patch]]


@dataclass(frozen=True)
class Verdict:
    """What the auditor said of one run; no flag means that nothing was found."""

    name: str
    flags: tuple[str, ...]


@dataclass(frozen=True)
class MutantReport:
    """All verdicts."""

    mutants: tuple[Verdict, ...]
    clean: tuple[Verdict, ...]

    @property
    def caught(self) -> int:
        """Mutants that were found out."""
        return sum(bool(verdict.flags) for verdict in self.mutants)

    @property
    def false_alarms(self) -> int:
        """Clean runs that were flagged."""
        return sum(bool(verdict.flags) for verdict in self.clean)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "caught": self.caught,
            "total": len(self.mutants),
            "false_alarms": self.false_alarms,
            "clean_runs": len(self.clean),
            "mutants": {v.name: list(v.flags) for v in self.mutants},
            "clean": {v.name: list(v.flags) for v in self.clean},
        }


def run(
    *,
    names: tuple[str, ...] | None = None,
    clean_runs: int = CLEAN_RUNS,
    progress: Progress = lambda *_: None,
) -> MutantReport:
    """Plant every fault once, and audit clean runs beside them.

    Args:
        names: the mutants to plant; None for all.
        clean_runs: runs without a fault, of another seed each.
        progress: told what is being done, and how much of it is done.
    """
    chosen = [mutant for mutant in MUTANTS if names is None or mutant.name in names]
    found = []
    for number, mutant in enumerate(chosen):
        with planted(mutant):
            found.append(Verdict(mutant.name, examine(mutant.settings, seed=0)))
        progress("mutants", (number + 1) / len(chosen))
    clean = []
    for seed in range(clean_runs):
        settings = (SEALED, SAMPLED)[seed % 2]
        clean.append(Verdict(f"seed {seed}", examine(settings, seed=seed)))
        progress("clean runs", (seed + 1) / clean_runs)
    return MutantReport(tuple(found), tuple(clean))


def examine(settings: tuple[str, ...], seed: int) -> tuple[str, ...]:
    """Carry out one run, audit it with everything there is, and name what is flagged."""
    with tempfile.TemporaryDirectory(prefix="calyx-mutant-") as name:
        folder = Path(name) / "run"
        try:
            simulate(settings=settings, seed=seed, out=folder, workers=1)
            store = EvidenceStore.anew(folder)
            canaries.run(RunFolder(folder), store, lambda *_: None, canaries=CANARIES, workers=1)
        except RoundError:
            return ("the server stopped the run, whose rounds were lost",)
        audited = AuditedRun(folder)
        found = canary_finding.found(audited, store)
        assert found is not None
        flags = _records_flags(found) if isinstance(found, CanarySection) else _clients_flags(found)
        if sampling.find(audited, store).verdict in ("not as assumed", "not measured"):
            flags.append("sampling is not as assumed")
        if not agreement.find(audited, store).agrees:
            flags.append("ledgers, configuration and journal disagree")
        if (fault := _model_fault(audited)) is not None:
            flags.append(fault)
        return tuple(flags)


def _records_flags(found: CanarySection) -> list[str]:
    flags = []
    if any(o.proven > (found.guarantee or math.inf) for o in found.observers):
        flags.append("canaries show more than is guaranteed")
    if any(observer.noise.too_little for observer in found.observers):
        flags.append("too little noise")
    if not all(observer.signal.as_planned for observer in found.observers):
        flags.append("canaries do not weigh one clip norm")
    if not found.sums.agree:
        flags.append("sums of clipped gradients are others when computed again")
    if found.remainder is not None and not found.remainder.as_planned:
        flags.append("what remains of the sums is not the planned noise")
    return flags


def _clients_flags(found: ClientCanarySection) -> list[str]:
    return ["canary clients show more than is guaranteed"] if found.violated else []


def _model_fault(audited: AuditedRun) -> str | None:
    """Looked at again by the auditor: the trainer's own check may be what is broken."""
    config = audited.config
    try:
        check_private(build_model(config.model, (1, 8, 8), 10, config.seed))
    except ModelError:
        return "the model mixes records"
    return None


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Put a mutant's functions in place for a block."""
    before: list[Patch] = []
    try:
        for owner, attribute, replacement in mutant.patches():
            before.append((owner, attribute, getattr(owner, attribute)))
            setattr(owner, attribute, replacement)
        yield
    finally:
        for owner, attribute, original in reversed(before):
            setattr(owner, attribute, original)


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

    owners: list[Any] = [attack, views, client_round, federation]
    return [
        *((owner, "build_model", mixing) for owner in owners),
        (sys.modules[__name__], "build_model", mixing),
        (dp_sgd, "check_private", nothing),
        (dp_sgd, "try_private", nothing),
    ]


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
)
