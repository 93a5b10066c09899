"""What the model is good for, what privacy cost, and whether every group pays the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from pydantic import Field
from scipy.stats import beta

from calyx.audit.attacks import evaluation, unprotected
from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.finished_run import AuditedRun
from calyx.audit.section import Section
from calyx.server.state.journal import clients_metrics, metrics_of
from calyx.shared.config.schema import TaskConfig
from calyx.shared.metric_facts import ACCURACY, MetricFacts

_CONFIDENCE = 0.95


class GroupAccuracy(Section):
    """Accuracy on the test records of one class, with its Clopper-Pearson interval."""

    group: str
    records: int
    accuracy: float
    low: float
    high: float


class FoundMetric(Section):
    """One metric of the task on the server's test records."""

    metric: MetricFacts
    value: float | None = Field(description="after the last round; None: not defined by them")
    by_round: tuple[float | None, ...]
    without_privacy: float | None = Field(
        description="of the same run without noise; None if it was not trained"
    )
    cost: float | None = Field(
        description="what privacy cost, in the metric's own unit; above 0: it is worse with it"
    )


class ClientsMetric(Section):
    """One metric on the clients' own records, where they may tell it."""

    metric: MetricFacts
    mean: float = Field(description="over all records of the clients that told it")
    worst: float | None = Field(
        description="mean of the worst tenth of the clients; of the headline only"
    )


class UtilitySection(Section):
    """What the model is worth on the server's test records, by the metrics of its task."""

    metrics: tuple[FoundMetric, ...] = Field(description="of the task, the headline first")
    clients: tuple[ClientsMetric, ...] = Field(description="in the last round; mostly empty")
    accuracy: float | None = Field(description="None: the task has none")
    loss: float | None
    test_records: int
    rounds: tuple[int, ...]
    accuracy_by_round: tuple[float | None, ...]
    accuracy_without_privacy: float | None
    cost_in_points: float | None = Field(description="of accuracy, in percentage points")
    groups: tuple[GroupAccuracy, ...] = Field(description="by class; empty if not evaluated")
    worst_group: str | None
    groups_missing: str = Field(description="why there are no groups, in a sentence; or empty")
    confidence: float

    @property
    def headline(self) -> FoundMetric:
        """The metric by which the run is judged first."""
        return self.metrics[0]


def find(run: AuditedRun, store: EvidenceStore) -> UtilitySection:
    """Put together journal and evidence."""
    plain = unprotected.metrics_without_privacy(store)
    by_round = [metrics_of(event) for event in run.rounds]
    groups = _groups(store)
    accuracy = _found(ACCURACY, by_round, plain)
    return UtilitySection(
        metrics=tuple(_found(metric, by_round, plain) for metric in run.judged_by),
        clients=tuple(_on_clients(run)),
        accuracy=accuracy.value,
        loss=run.rounds[-1]["loss"],
        test_records=int(run.start["test_records"]),
        rounds=tuple(int(event["round"]) for event in run.rounds),
        accuracy_by_round=accuracy.by_round,
        accuracy_without_privacy=accuracy.without_privacy,
        cost_in_points=None if accuracy.cost is None else 100 * accuracy.cost,
        groups=groups,
        worst_group=min(groups, key=lambda g: g.accuracy).group if groups else None,
        groups_missing="" if groups else _why_no_groups(run.config.task),
        confidence=_CONFIDENCE,
    )


def _found(
    metric: MetricFacts,
    by_round: Sequence[Mapping[str, float | None]],
    plain: Mapping[str, float | None],
) -> FoundMetric:
    values = tuple(told.get(metric.name) for told in by_round)
    value, other = values[-1], plain.get(metric.name)
    return FoundMetric(
        metric=metric,
        value=value,
        by_round=values,
        without_privacy=other,
        cost=None if value is None or other is None else metric.cost(value, other),
    )


def _on_clients(run: AuditedRun) -> Iterator[ClientsMetric]:
    by_name = clients_metrics(run.rounds[-1])
    for metric in run.judged_by:
        if metric.name in by_name:
            worst = by_name.get(f"{metric.name}-worst")
            yield ClientsMetric(metric=metric, mean=by_name[metric.name], worst=worst)


def _why_no_groups(task: TaskConfig) -> str:
    if task.is_own:
        return (
            "Not by class: what this task predicts is no class, or the test records could not be "
            "loaded."
        )
    kinds = {
        "regression": "a regression predicts values",
        "multilabel": "a record has several labels at once",
        "next_token": "each step of a record has a label of its own",
    }
    if task.kind in kinds:
        return f"Not by class: {kinds[task.kind]}, so no record belongs to one class."
    return "Not by class: the test records could not be loaded."


def _groups(store: EvidenceStore) -> tuple[GroupAccuracy, ...]:
    if not store.has(evaluation.NAME):
        return ()
    arrays = store.get_arrays(evaluation.NAME)
    labels, predicted = arrays["labels"], arrays["predicted"]
    groups = []
    for label in range(int(arrays["classes"])):
        own = labels == label
        records, right = int(own.sum()), int((predicted[own] == label).sum())
        if records:
            low, high = interval(right, records)
            groups.append(
                GroupAccuracy(
                    group=f"class {label}",
                    records=records,
                    accuracy=right / records,
                    low=low,
                    high=high,
                )
            )
    return tuple(groups)


def interval(right: int, trials: int) -> tuple[float, float]:
    """Two-sided Clopper-Pearson interval of a share, at 95 %."""
    tail = (1 - _CONFIDENCE) / 2
    low = 0.0 if right == 0 else float(beta.ppf(tail, right, trials - right + 1))
    high = 1.0 if right == trials else float(beta.ppf(1 - tail, right + 1, trials - right))
    return float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))
