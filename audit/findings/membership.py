"""Can anybody tell from the final model who was in it? LiRA and RMIA over whole federations.

Each shadow federation takes its turn as the target; the others, but for the one with the other
half of its records, are what the attacker trained. With that one, a record of the target would be
in fewer of the attacker's shadows than any other, and that alone would shift its score.

* **LiRA, online** (Carlini et al. 2022): log-likelihood ratio of the target's confidence under two
  Gaussians, fitted to the shadows with and without the record; below 64 shadows one variance for
  all records.
* **LiRA, offline**: how far the confidence lies above the shadows without the record.
* **RMIA** (Zarifzadeh, Liu, Shokri 2024): share of test records z whose p(z|target)/p(z) the
  record's own ratio exceeds, p(.) being the mean over the shadows.

Thresholds for a false positive rate come from the other targets only. A rate of 0.1 % is left out
where there are fewer than 1,000 records outside to measure it on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import norm, rankdata

from audit.attacks.membership import NAME
from audit.audited_run import AuditedRun
from audit.bounds import clopper_pearson
from audit.bounds.guesses import LEVEL
from audit.evidence import Arrays, EvidenceStore
from audit.report.section import Section

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
# (confidences of the shadows, who was inside, target's confidences, test confidences of the
# shadows, of the target) -> score of each record.
Score = Callable[[Floats, Mask, Floats, Floats, Floats], Floats]

_RATES = (0.01, 0.001)
_LEAST_OUTSIDE = 1000
_RESAMPLES = 200
_WORST_SHARE = 0.01


class RateAt(Section):
    """True positives at a false positive rate, with 95 % limits."""

    wanted_false_positive_rate: float
    false_positive_rate: float = Field(description="as it came out with thresholds of the others")
    true_positive_rate: float
    low: float
    high: float


class MembershipAttack(Section):
    """One attack."""

    attack: str
    auc: float = Field(description="0.5 is guessing")
    auc_low: float
    auc_high: float
    rates: tuple[RateAt, ...]
    worst_records_auc: float = Field(description="over the 1 % of records it does best on")


class MembershipSection(Section):
    """Membership inference on the final model."""

    shadows: int
    records: int
    shadow_accuracy: float
    attacks: tuple[MembershipAttack, ...]
    answer: str


def find(run: AuditedRun, store: EvidenceStore) -> MembershipSection | None:
    """Rates of all attacks from the evidence; None if there were no shadows."""
    if not store.has(NAME):
        return None
    arrays = store.get_arrays(NAME)
    inside = arrays["inside"].astype(np.bool_)
    attacks = tuple(
        attacked(name, scores_of(score, arrays), inside) for name, score in SCORES.items()
    )
    best = max(attacks, key=lambda a: a.auc)
    chance = "no better than guessing" if best.auc_low <= 0.5 else "better than guessing"
    return MembershipSection(
        shadows=len(inside),
        records=inside.shape[1],
        shadow_accuracy=float(arrays["accuracies"].mean()),
        attacks=attacks,
        answer=f"The best of {len(attacks)} attacks, {best.attack}, has an AUC of {best.auc:.3f} "
        f"({best.auc_low:.3f} to {best.auc_high:.3f}): {chance}. Each shadow learnt from half of "
        "the records, which makes the noise relatively larger than in the run itself.",
    )


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


def attacked(name: str, scores: Floats, inside: Mask) -> MembershipAttack:
    """Rates of one attack over all targets."""
    by_record = np.array([_auc(scores[:, i], inside[:, i]) for i in range(scores.shape[1])])
    low, high = _auc_interval(scores, inside)
    count = max(1, round(_WORST_SHARE * len(by_record)))
    return MembershipAttack(
        attack=name,
        auc=_auc(scores.ravel(), inside.ravel()),
        auc_low=low,
        auc_high=high,
        rates=tuple(_rates(scores, inside)),
        worst_records_auc=float(np.sort(by_record)[-count:].mean()),
    )


def lira_online(train: Floats, inside: Mask, target: Floats, _: Floats, __: Floats) -> Floats:
    """Likelihood ratio of two Gaussians with a shared variance."""
    with_it = _mean(train, inside)
    without = _mean(train, ~inside)
    residuals = np.where(inside, train - with_it, train - without)
    spread = max(float(residuals.std()), 1e-9)
    ratio = norm.logpdf(target, with_it, spread) - norm.logpdf(target, without, spread)
    return np.asarray(ratio)


def lira_offline(train: Floats, inside: Mask, target: Floats, _: Floats, __: Floats) -> Floats:
    """Distance above the shadows without the record, in standard deviations."""
    without = _mean(train, ~inside)
    spread = max(float((train - without)[~inside].std()), 1e-9)
    return np.asarray((target - without) / spread)


def rmia(train: Floats, _: Mask, target: Floats, test: Floats, target_test: Floats) -> Floats:
    """Share of test records that the record's likelihood ratio exceeds."""
    own = _probability(target) / _probability(train).mean(axis=0)
    population = np.sort(_probability(target_test) / _probability(test).mean(axis=0))
    return np.asarray(np.searchsorted(population, own, side="right") / len(population))


SCORES: dict[str, Score] = {
    "LiRA, online": lira_online,
    "LiRA, offline": lira_offline,
    "RMIA": rmia,
}


def _probability(confidence: Floats) -> Floats:
    """p_y of log p_y / (1 - p_y), never quite 0."""
    return np.maximum(1 / (1 + np.exp(-np.clip(confidence, -500, 500))), 1e-12)


def _mean(values: Floats, mask: Mask) -> Floats:
    """Mean over the shadows in `mask`, record by record; over all where it has none."""
    counts = mask.sum(axis=0)
    sums = np.where(mask, values, 0.0).sum(axis=0)
    return np.asarray(np.where(counts > 0, sums / np.maximum(counts, 1), values.mean(axis=0)))


def _auc(scores: Floats, inside: Mask) -> float:
    """Mann-Whitney, ties counted half; 0.5 where one side is empty."""
    n = int(inside.sum())
    k = len(inside) - n
    if not n or not k:
        return 0.5
    ranks = rankdata(scores)
    return float((ranks[inside].sum() - n * (n + 1) / 2) / (n * k))


def _auc_interval(scores: Floats, inside: Mask) -> tuple[float, float]:
    """95 % bootstrap interval over records; a record's targets stay together."""
    generator = np.random.default_rng(0)
    records = scores.shape[1]
    found = []
    for _ in range(_RESAMPLES):
        drawn = generator.integers(0, records, records)
        found.append(_auc(scores[:, drawn].ravel(), inside[:, drawn].ravel()))
    low, high = np.quantile(found, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def _rates(scores: Floats, inside: Mask) -> Iterator[RateAt]:
    outside = int((~inside).sum())
    for wanted in _RATES:
        if wanted < 0.01 and outside < _LEAST_OUTSIDE:
            continue
        hits = alarms = 0
        for target in range(len(scores)):
            others = np.arange(len(scores)) != target
            threshold = np.quantile(scores[others][~inside[others]], 1 - wanted)
            called = scores[target] > threshold
            hits += int((called & inside[target]).sum())
            alarms += int((called & ~inside[target]).sum())
        within = int(inside.sum())
        yield RateAt(
            wanted_false_positive_rate=wanted,
            false_positive_rate=alarms / outside,
            true_positive_rate=hits / within,
            low=clopper_pearson.at_least(hits, within, LEVEL / 2),
            high=clopper_pearson.at_most(hits, within, LEVEL / 2),
        )
