"""Points of an ROC curve, with intervals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calyx.audit.bounds import clopper_pearson
from calyx.audit.bounds.guesses import LEVEL
from calyx.audit.section import Section

_POINTS = 20


class RocPoint(Section):
    """One threshold."""

    false_positive_rate: float
    true_positive_rate: float
    low: float = Field(description="of the true positive rate, 95 % Clopper-Pearson")
    high: float


def roc_points(
    scores: NDArray[np.float64], inside: NDArray[np.bool_], trials: int | None = None
) -> Iterator[RocPoint]:
    """About twenty points, evenly spaced on a logarithmic axis of the false positive rate.

    Args:
        scores: (n,), high where membership is suspected.
        inside: (n,), who was a member.
        trials: independent ones among the n, for intervals and the smallest rate shown; None if
            all are.
    """
    ordered = inside[np.argsort(-scores, kind="stable")]
    members, others = int(inside.sum()), int((~inside).sum())
    independent = members if trials is None else trials
    first = 1.0 if trials is None else max(1.0, others / trials)
    hits, alarms = np.cumsum(ordered), np.cumsum(~ordered)
    for wanted in sorted({round(x) for x in np.geomspace(first, max(others, 1), _POINTS)}):
        place = int(np.searchsorted(alarms, wanted))
        if place >= len(alarms):
            continue
        hit = int(hits[place])
        counted = hit * independent / members
        yield RocPoint(
            false_positive_rate=wanted / others,
            true_positive_rate=hit / members,
            low=clopper_pearson.at_least(counted, independent, LEVEL / 2),
            high=clopper_pearson.at_most(counted, independent, LEVEL / 2),
        )
