"""One round on the client, from instruction to protected update, in reading order."""

from __future__ import annotations

from flwr.app import RecordDict

from client.node import Node
from client.training import train_locally
from client.update import protect_update
from shared.config import Config
from shared.data import Dataset
from shared.errors import PolicyViolation
from shared.models import build_model
from shared.privacy.plan import PrivacyPlan
from shared.protocol.arrays import load_weights, read_record, to_record, weights_of
from shared.protocol.messages import TrainInstruction, read_arrays, train_reply


def train_round(content: RecordDict, config: Config, node: Node) -> RecordDict:
    """Carry out one training instruction.

    Raises:
        ProtocolError: the instruction or the model is not what it must be.
        PolicyViolation: it asks for less privacy than the owner allows, or its plan was made for
            other data; nothing was recorded or trained.
        BudgetExceeded: the round would go over the budget; nothing was recorded or trained.
    """
    instruction = TrainInstruction.from_content(content)
    plan, records = instruction.plan, node.records(config)
    policy = node.policy(plan)
    policy.check(config, plan)
    _plan_fits(config, plan, records)
    _can_be_protected(config, plan)

    model = build_model(config.model, records.input_shape, records.classes, config.seed)
    received = read_record(read_arrays(content), like=weights_of(model))
    load_weights(model, received)

    # Write-ahead: the cost is on disk before the first gradient is computed.
    digest = instruction.digest(config, received)
    with node.ledger(records) as ledger:
        ledger.charge(
            run=instruction.run,
            round=instruction.round,
            instruction=digest,
            event=plan.round_event,
            budget=policy.budget,
            repeatable=node.is_simulated,
        )

    noise = node.noise(digest)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    log = train_locally(
        model,
        records,
        config.training,
        plan,
        proximal_mu=instruction.proximal_mu,
        noise=noise,
        order_seed=node.order_seed(config, instruction.round),
    )
    if plan.unit == "client" and plan.noise == "local":
        after = protect_update(before, model.state_dict(), plan, noise)
        model.load_state_dict(after)
    may_tell = not plan.is_private or config.privacy.release_metrics
    metrics = {"train-loss": log.last_loss} if may_tell else {}
    return train_reply(to_record(weights_of(model)), plan.declared_records, metrics)


def _can_be_protected(config: Config, plan: PrivacyPlan) -> None:
    """Refuse what this client has no code for, before anything is charged or computed."""
    if plan.noise not in ("none", "local"):
        raise PolicyViolation(f"this client cannot give {plan.noise} noise; use local")
    if config.secure_aggregation.scheme != "none":
        raise PolicyViolation("this client cannot seal its update yet; use scheme = none")


def _plan_fits(config: Config, plan: PrivacyPlan, records: Dataset) -> None:
    """A plan for fewer records than there are would understate the sampling rate's meaning."""
    public = not plan.is_private or config.privacy.record_counts == "public"
    if public and plan.declared_records != len(records):
        raise PolicyViolation(
            f"the plan was made for {plan.declared_records} records but this client declared "
            f"{len(records)}; start a new run"
        )
