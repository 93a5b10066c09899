"""Can anyone tell from the final model who was in it? LiRA and RMIA over whole federations.

Each shadow federation takes its turn as the target; the attacker trained the others, except the one
with the other half of its records. With that one, a record of the target would be in fewer of the
attacker's shadows than any other, and that alone would shift its score.

Results that easily appear where there is nothing are held to chance:

* three attacks are tried, so their intervals hold *together* with 95 % confidence;
* thresholds for a false positive rate come from the other targets only, and a rate of 0.1 % is left
  out below 1,000 records;
* the 1 % of records that are easiest to find are chosen on one half of the shadows and attacked in
  the other. The best of 1,000 records in eight models would look perfectly exposed by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calyx.audit.attacks.membership import lira, rmia
from calyx.audit.attacks.membership.shadows import NAME
from calyx.audit.bounds import clopper_pearson
from calyx.audit.bounds.guesses import LEVEL
from calyx.audit.evidence.store import Arrays, EvidenceStore
from calyx.audit.findings.measured.roc import RocPoint, roc_points
from calyx.audit.finished_run import AuditedRun
from calyx.audit.section import Section
from calyx.shared.metric_facts import ACCURACY, MetricFacts

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
# (confidences of the shadows, who was inside, target's confidences, test confidences of the
# shadows, of the target) -> score of each record.
Score = Callable[[Floats, Mask, Floats, Floats, Floats], Floats]

SCORES: dict[str, Score] = {
    "LiRA, online": lambda train, inside, target, _, __: lira.online(train, inside, target),
    "LiRA, offline": lambda train, inside, target, _, __: lira.offline(train, inside, target),
    "RMIA": lambda train, _, target, test, other: rmia.score(train, target, test, other),
}
_RATES = (0.01, 0.001)
_LEAST_RECORDS = 1000
_RESAMPLES = 1000
_WORST_SHARE = 0.01


class Area(Section):
    """Area under the ROC curve; 0.5 is guessing."""

    auc: float
    low: float = Field(description="bootstrap over records")
    high: float


class RateAt(Section):
    """True positives at a false positive rate, with 95 % limits."""

    wanted_false_positive_rate: float
    false_positive_rate: float = Field(description="as measured, with thresholds from the others")
    true_positive_rate: float
    low: float = Field(description="Clopper-Pearson; each record counts as one trial")
    high: float


class MembershipAttack(Section):
    """One attack."""

    attack: str
    auc: float = Field(description="0.5 is guessing")
    auc_low: float = Field(description="the intervals of all attacks hold together with 95 %")
    auc_high: float
    rates: tuple[RateAt, ...]
    roc: tuple[RocPoint, ...]
    worst_records: Area = Field(
        description="on the 1 % of records that moved the model's confidence most in the other "
        "half of the shadows"
    )


class MembershipSection(Section):
    """Membership inference on the final model."""

    shadows: int
    records: int
    metric: MetricFacts = Field(description="the headline of the run's task")
    shadow_value: float | None = Field(description="its mean over the shadows that define it")
    shadow_accuracy: float | None = Field(description="the same if it is the accuracy")
    attacks: tuple[MembershipAttack, ...]
    better_than_guessing: bool
    answer: str


def find(run: AuditedRun, store: EvidenceStore) -> MembershipSection | None:
    """Rates of all attacks from the evidence; None if there were no shadows."""
    if not store.has(NAME):
        return None
    arrays = store.get_arrays(NAME)
    attacks = tuple(attacked(name, score, arrays) for name, score in SCORES.items())
    best = max(attacks, key=lambda a: a.auc)
    exposed = any(attack.auc_low > 0.5 for attack in attacks)
    verdict = "better than guessing" if exposed else "no better than guessing"
    shadows, records = arrays["inside"].shape
    metric, value = run.judged_by[0], _mean_headline(arrays)
    return MembershipSection(
        shadows=shadows,
        records=records,
        metric=metric,
        shadow_value=value,
        shadow_accuracy=value if metric.name == ACCURACY.name else None,
        attacks=attacks,
        better_than_guessing=exposed,
        answer=f"The best of {len(attacks)} attacks, {best.attack}, has an AUC of {best.auc:.3f} "
        f"({best.auc_low:.3f} to {best.auc_high:.3f}): {verdict}. The models under attack are "
        "those of whole federations like this one, each on half of the records, which makes the "
        "noise larger beside them than in the run itself.",
    )


def _mean_headline(arrays: Arrays) -> float | None:
    # Evidence from before there were tasks calls it accuracies.
    told = arrays["headlines"] if "headlines" in arrays else arrays["accuracies"]
    defined = told[np.isfinite(told)]
    return float(defined.mean()) if len(defined) else None


def scores_of(score: Score, arrays: Arrays) -> Floats:
    """Scores of every target: (targets, records); pairs as shadows of each other."""
    train, test = arrays["train"], arrays["test"]
    inside = arrays["inside"].astype(np.bool_)
    pair = np.arange(len(train)) // 2
    found = []
    for target in range(len(train)):
        own = pair != pair[target]
        found.append(score(train[own], inside[own], train[target], test[own], test[target]))
    return np.array(found)


def attacked(name: str, score: Score, arrays: Arrays) -> MembershipAttack:
    """Rates of one attack over all targets."""
    scores, inside = scores_of(score, arrays), arrays["inside"].astype(np.bool_)
    records = np.tile(np.arange(scores.shape[1]), len(scores))
    everywhere = area(scores.ravel(), inside.ravel(), records, LEVEL / len(SCORES))
    return MembershipAttack(
        attack=name,
        auc=everywhere.auc,
        auc_low=everywhere.low,
        auc_high=everywhere.high,
        rates=tuple(_rates(scores, inside)),
        roc=tuple(roc_points(scores.ravel(), inside.ravel(), trials=scores.shape[1])),
        worst_records=_worst(scores, arrays["train"], inside),
    )


def area(scores: Floats, inside: Mask, record: NDArray[np.int64], level: float) -> Area:
    """Area under the ROC curve of scores of any records in any models.

    The bootstrap draws records and takes all scores of each: what one record does in several models
    is not independent.

    Args:
        scores: (n,); ties count half.
        inside: (n,), whether the model was trained with the record.
        record: (n,), the record that each score belongs to.
        level: chance that the area lies outside the interval.
    """
    _, place = np.unique(scores, return_inverse=True)
    own, record = np.unique(record, return_inverse=True)

    def drawn(times: Floats) -> float:
        weights = times[record]
        present, absent = (
            np.bincount(place, weights * inside),
            np.bincount(place, weights * ~inside),
        )
        both = present.sum() * absent.sum()
        return float(present @ (np.cumsum(absent) - absent / 2) / both) if both else 0.5

    generator = np.random.default_rng(0)
    again = generator.multinomial(len(own), np.full(len(own), 1 / len(own)), size=_RESAMPLES)
    low, high = np.quantile([drawn(times) for times in again], [level / 2, 1 - level / 2])
    return Area(auc=drawn(np.ones(len(own))), low=float(low), high=float(high))


def _worst(scores: Floats, confidences: Floats, inside: Mask) -> Area:
    """Area on the most exposed records, chosen in one half of the pairs, attacked in the other."""
    pairs = np.arange(len(scores)) // 2
    second = pairs >= (pairs[-1] + 1) // 2
    count = max(1, round(_WORST_SHARE * scores.shape[1]))
    chosen, members, records = [], [], []
    for target in (second, ~second):
        # Each pair has the record in one of its models and not in the other.
        sign = np.where(inside[~target], 1.0, -1.0)
        exposed = np.argsort((sign * confidences[~target]).sum(axis=0), kind="stable")[-count:]
        chosen.append(scores[target][:, exposed].ravel())
        members.append(inside[target][:, exposed].ravel())
        records.append(np.tile(exposed, int(target.sum())))
    return area(np.concatenate(chosen), np.concatenate(members), np.concatenate(records), LEVEL)


def _rates(scores: Floats, inside: Mask) -> Iterator[RateAt]:
    """Rates over all targets, with limits as if each record had been tried once.

    The attacker's models err on a record in the same way for several targets. Taken for
    independent, those trials gave limits that failed in 18 % of simulated runs.
    """
    within, outside = int(inside.sum()), int((~inside).sum())
    records = scores.shape[1]
    for wanted in _RATES:
        if wanted < 0.01 and records < _LEAST_RECORDS:
            continue
        hits = alarms = 0
        for target in range(len(scores)):
            others = np.arange(len(scores)) != target
            threshold = np.quantile(scores[others][~inside[others]], 1 - wanted)
            called = scores[target] > threshold
            hits += int((called & inside[target]).sum())
            alarms += int((called & ~inside[target]).sum())
        found = hits / within
        yield RateAt(
            wanted_false_positive_rate=wanted,
            false_positive_rate=alarms / outside,
            true_positive_rate=found,
            low=clopper_pearson.at_least(found * records, records, LEVEL / 2),
            high=clopper_pearson.at_most(found * records, records, LEVEL / 2),
        )
