"""One round on the client, from instruction to protected update, in reading order."""

from __future__ import annotations

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray
from torch import nn

from calyx.client.instrumentation.hooks import Audit
from calyx.client.node import Node
from calyx.client.rehearsal import rehearse
from calyx.client.sealing.sealing import integers_to_seal
from calyx.client.sealing.terms import SealingTerms
from calyx.client.training.client_level import protect_update
from calyx.client.training.local import train_locally
from calyx.shared.config import Config
from calyx.shared.data import Dataset
from calyx.shared.encryption import SealingParameters
from calyx.shared.encryption.quantise import contribution
from calyx.shared.errors import EncryptionError, ModelError, PolicyViolation
from calyx.shared.models import build_model
from calyx.shared.models.schedule import in_round
from calyx.shared.models.vector import dimension, frozen_names, to_vector, trainable_names
from calyx.shared.privacy.noise import NoiseSource
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.protocol.arrays import (
    LARGEST_WEIGHT,
    Weights,
    load_weights,
    read_record,
    to_record,
    weights_of,
)
from calyx.shared.protocol.messages import TrainInstruction, read_arrays, train_reply
from calyx.shared.protocol.sealed.messages import sealing_parameters
from calyx.shared.tasks.find import task_of
from calyx.shared.tasks.task import Task


def train_round(content: RecordDict, config: Config, node: Node) -> RecordDict:
    """Carry out one training instruction.

    Raises:
        ProtocolError: the instruction or the model is not what it must be.
        PolicyViolation: it asks for less privacy than the owner allows, or its plan was made for
            other data; nothing was recorded or trained.
        ModelError: the model cannot be trained or sealed, or not on this device.
        BudgetExceeded: the round would go over the budget; nothing was recorded or trained.
    """
    instruction = TrainInstruction.from_content(content)
    plan = instruction.plan
    policy = node.policy(plan)
    # Before the records: reading them can run the owner's code, and the run's is named by a server.
    policy.check(config, plan)
    records = node.records(config)
    plan_fits(config, plan, records)
    rehearse(config, records)

    task = task_of(config.task, records.spec.target)
    model = build_model(config.model, records.spec, config.seed, task)
    received = read_record(read_arrays(content), like=weights_of(model), largest=LARGEST_WEIGHT)
    # Buffers are the model's own: whether records can be kept apart was tried with these, and a
    # sender could choose others that hide for the trial what they do in training.
    own = {name: w for name, w in weights_of(model).items() if name not in _parameter_names(model)}
    load_weights(model, {**received, **own} if plan.is_record_level else received)
    digest = instruction.digest(config, received)
    terms = before = None
    if config.is_sealed:
        terms = _sealing_terms(config, instruction, node, dimension(model))
        sealing = node.sealing()
        sealing.check(terms)
        if not node.is_simulated:
            before = sealing.sent_before(instruction.run, instruction.round, digest)

    noise, audit = node.noise(digest), node.audit(instruction.round)
    # Write-ahead: the cost is on disk before the first gradient is computed. The same bytes again,
    # from a kept reply or from seeded noise, cost nothing: they are not a new release. Everything
    # that can fail for a reason known without the records has been tried by now.
    with node.ledger(records) as ledger:
        ledger.charge(
            run=instruction.run,
            round=instruction.round,
            instruction=digest,
            event=plan.round_event,
            budget=policy.budget,
            repeatable=node.is_simulated or before is not None,
        )
    if before is not None:
        return before

    if terms is not None and plan.is_gradient_sum:
        from calyx.client.training.dp_sgd import clipped_gradient_sum

        vector, _ = clipped_gradient_sum(model, records, task, plan, noise, audit)
        return _sealed(vector, config, instruction, node, noise, digest, terms)
    loss = _train(model, records, task, config, instruction, node, noise, audit)
    if terms is not None:
        vector = _update_vector(model, received, plan, len(records))
        return _sealed(vector, config, instruction, node, noise, digest, terms)
    may_tell = not plan.is_private or config.privacy.release_metrics
    metrics = {"train-loss": loss} if may_tell else {}
    trained = weights_of(model)
    if plan.is_record_level:
        # What has no noise does not leave, no matter what the model's code has written there.
        noised = _parameter_names(model, trainable=True)
        trained = {name: w if name in noised else received[name] for name, w in trained.items()}
    return train_reply(to_record(trained), plan.declared_records, metrics)


def _parameter_names(model: nn.Module, *, trainable: bool = False) -> set[str]:
    """All names of a model's parameters; a parameter that is used in two places has two."""
    named = model.named_parameters(remove_duplicate=False)
    return {name for name, parameter in named if parameter.requires_grad or not trainable}


def _train(
    model: nn.Module,
    records: Dataset,
    task: Task,
    config: Config,
    instruction: TrainInstruction,
    node: Node,
    noise: NoiseSource,
    audit: Audit,
) -> float:
    """Train in place, with all the protection that the client alone provides; return the loss."""
    plan = instruction.plan
    if plan.unit == "client" and audit.canaries is not None:
        audit.canaries.stand_in((p for p in model.parameters() if p.requires_grad), plan.clip_norm)
        return 0.0  # it has learned nothing
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    log = train_locally(
        model,
        records,
        task,
        in_round(config.training, instruction.round),
        plan,
        proximal_mu=instruction.proximal_mu,
        noise=noise,
        order_seed=node.order_seed(config, instruction.round),
        audit=audit,
    )
    if plan.unit == "client" and plan.noise == "local":
        frozen = frozen_names(model)
        own, trained = (
            {name: tensor for name, tensor in weights.items() if name not in frozen}
            for weights in (before, model.state_dict())
        )
        model.load_state_dict(before | protect_update(own, trained, plan, noise))
    return log.last_loss


def _update_vector(
    model: nn.Module, received: Weights, plan: PrivacyPlan, records: int
) -> NDArray[np.float64]:
    """The update to seal: clipped for distributed noise, weighted by records without any noise."""
    names = trainable_names(model)
    update = to_vector(weights_of(model), names) - to_vector(received, names)
    if not plan.is_private:
        return update * (records / plan.declared_records)
    if plan.noise == "local":
        return update
    # An update that is not finite counts as zero, so that it cannot be told apart from others.
    return contribution(update, plan.clip_norm)


def _sealed(
    vector: NDArray[np.float64],
    config: Config,
    instruction: TrainInstruction,
    node: Node,
    noise: NoiseSource,
    digest: str,
    terms: SealingTerms,
) -> RecordDict:
    run, number = instruction.run, instruction.round
    values, _ = integers_to_seal(vector, config, instruction.plan, number, noise)
    sealing = node.sealing()
    reply = sealing.seal(values, number, terms)
    if not node.is_simulated:
        sealing.keep(reply, run, number, digest)
    return reply


def _sealing_terms(
    config: Config, instruction: TrainInstruction, node: Node, size: int
) -> SealingTerms:
    """The terms an admission must have for this instruction and a model of `size` parameters."""
    parameters = sealing_fits(config, instruction.plan, size)
    least = node.owners_least_contributors
    return SealingTerms.of(instruction.run, node.name, config, parameters, least, instruction.plan)


def sealing_fits(config: Config, plan: PrivacyPlan, size: int) -> SealingParameters:
    """The noise must be made for this model of `size` parameters, and the fields for the noise."""
    if plan.mechanism is not None and plan.mechanism.dimension != size:
        raise PolicyViolation(
            f"the plan's noise is for {plan.mechanism.dimension} values; the model has {size}"
        )
    try:
        return sealing_parameters(config, plan, size)
    except EncryptionError as error:
        # Unlike a ciphertext's, this fault is the run's, and will recur in every round.
        raise ModelError(
            f"sums of this model cannot be sealed: {error}",
            hint=error.hint,
        ) from None


def plan_fits(config: Config, plan: PrivacyPlan, records: Dataset) -> None:
    """A plan for fewer records than there are would understate the sampling rate's meaning.

    And a share of the noise protects no one in an update that is not part of a sum.
    """
    if plan.noise == "distributed" and not config.is_sealed:
        raise PolicyViolation(
            "distributed noise protects sealed updates only",
            hint="start a new run with secure_aggregation.scheme = bfv",
        )
    if not config.tells_record_counts:
        return
    fits = len(records) <= plan.declared_records if config.has_common_plan else False
    if not fits and plan.declared_records != len(records):
        raise PolicyViolation(
            f"the plan was made for {plan.declared_records} records but this client declared "
            f"{len(records)}",
            hint="start a new run",
        )
