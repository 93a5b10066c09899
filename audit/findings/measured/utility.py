"""What the model is good for, what privacy cost, and whether every group pays the same."""

from __future__ import annotations

import numpy as np
from pydantic import Field
from scipy.stats import beta

from calyx.audit.attacks import evaluation, unprotected
from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.finished_run import AuditedRun
from calyx.audit.section import Section

_CONFIDENCE = 0.95


class GroupAccuracy(Section):
    """Accuracy on the test records of one class, with its Clopper-Pearson interval."""

    group: str
    records: int
    accuracy: float
    low: float
    high: float


class UtilitySection(Section):
    """Accuracy on the server's test records."""

    accuracy: float | None
    loss: float | None
    test_records: int
    rounds: tuple[int, ...]
    accuracy_by_round: tuple[float | None, ...]
    accuracy_without_privacy: float | None = Field(
        description="of the same run without noise; None if it was not trained"
    )
    cost_in_points: float | None = Field(description="what privacy cost, in percentage points")
    groups: tuple[GroupAccuracy, ...] = Field(description="by class; empty if not evaluated")
    worst_group: str | None
    confidence: float


def find(run: AuditedRun, store: EvidenceStore) -> UtilitySection:
    """Put together journal and evidence."""
    last = run.rounds[-1]
    plain = None
    if store.has(unprotected.NAME):
        plain = float(store.get_json(unprotected.NAME)["accuracy"][-1])
    groups = _groups(store)
    accuracy = last["accuracy"]
    return UtilitySection(
        accuracy=accuracy,
        loss=last["loss"],
        test_records=int(run.start["test_records"]),
        rounds=tuple(int(event["round"]) for event in run.rounds),
        accuracy_by_round=tuple(event["accuracy"] for event in run.rounds),
        accuracy_without_privacy=plain,
        cost_in_points=None if plain is None or accuracy is None else 100 * (plain - accuracy),
        groups=groups,
        worst_group=min(groups, key=lambda g: g.accuracy).group if groups else None,
        confidence=_CONFIDENCE,
    )


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
