"""The events of a run as the journal writes them in ``metrics.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from calyx.server.roster import Member, RoundRecord
from calyx.server.round.plans import Plans
from calyx.server.state.journal import Event
from calyx.shared.config import Config
from calyx.shared.models.evaluate import Evaluation
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.tasks.task import Task


def start_event(
    *,
    config: Config,
    run_dir: Path,
    engine: str,
    workers: int,
    first_round: int,
    parameters: int,
    test_records: int,
    task: Task,
    members: Sequence[Member],
    plans: Plans,
) -> Event:
    """The size of a run and its plan in short, once the clients have introduced themselves."""
    made = [plans.of(member) for member in members]
    return {
        "event": "start",
        "run_dir": str(run_dir),
        "preset": config.name,
        "rounds": config.training.rounds,
        "first_round": first_round,
        "clients": len(made),
        "train_records": sum(member.declared_records for member in members),
        "test_records": test_records,
        "metrics": [metric.facts().as_dict() for metric in task.measured],
        "parameters": parameters,
        "unit": config.privacy.unit,
        "noise": config.privacy.noise,
        "epsilon_target": made[0].target_epsilon,
        "delta": config.privacy.delta,
        "epsilon_record": _for_one_record(made),
        "noise_multiplier": max(plan.noise_multiplier for plan in made),
        "largest_client": max(plan.declared_records for plan in made),
        "engine": engine,
        "workers": workers,
        "scheme": config.secure_aggregation.scheme,
    }


def declined_event(server_round: int, members: Sequence[Member]) -> Event:
    """Clients that take no further part, before any round was paid for, and why."""
    clients = [{"client": m.client, "reason": m.reason} for m in members]
    return {"event": "declined", "round": server_round, "clients": clients}


def _for_one_record(plans: Sequence[PrivacyPlan]) -> float | None:
    """What all rounds of a client-level run cost one record; None where epsilon is per record."""
    by_client = {plan for plan in plans if plan.is_client_level}
    costs = [plan.spent(plan.rounds, "record").epsilon for plan in by_client]
    return max(costs, default=None)


def round_event(
    record: RoundRecord,
    result: Evaluation,
    *,
    epsilon_max: float,
    skipped: str,
    fault: str,
    client_metrics: Mapping[str, float],
    seconds: float,
) -> Event:
    """What came of a round.

    Args:
        record: what each client did.
        result: of the model on the server's test set.
        epsilon_max: most that any client may have spent so far.
        skipped: why the round had no effect; empty if it had.
        fault: the same in one word, see `calyx.server.round.lost_rounds`.
        client_metrics: the clients' own metrics, where they are open.
        seconds: how long it took.
    """
    return {
        "event": "round",
        "round": record.round,
        "accuracy": result.metrics.get("accuracy"),
        "metrics": dict(result.metrics),
        "loss": result.loss,
        "epsilon_max": epsilon_max,
        "ok": len(record.ok),
        "asked": len(record.asked),
        "declined": [asdict(n) for n in record.declined],
        "failed": [asdict(n) for n in record.failed],
        "rejected": [asdict(n) for n in record.rejected],
        "skipped": bool(skipped),
        "reason": skipped,
        "fault": fault,
        "clients": dict(client_metrics),
        "seconds": round(seconds, 4),
    }
