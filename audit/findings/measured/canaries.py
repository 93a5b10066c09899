"""What canaries showed: lower bounds on epsilon beside the guarantee, and the noise that was there.

Scores are made from the projections in the evidence (`calyx.audit.attacks.canaries.record`):

* full batches, or several local steps in a round: the sum over rounds, each weighted by its noise,
  which is optimal for Gaussian noise;
* Poisson batches of one step a round: sum of log(1 - q + q exp((x_t - 1/2) / s^2)), the likelihood
  ratio of an observer of all rounds; s is the noise in units of the clip norm.

Canaries also measure the mechanism. Projections of those left out vary by the noise, and by
whatever else is in the sum; if they vary less than the noise, noise is missing. Those that were in
stand out by one clip norm each time they are drawn, though they are louder than that before
clipping; if they stand out more, clipping is missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from calyx.audit.attacks.canaries.record import COMMITMENT, NAME, REMAINDERS, commitment
from calyx.audit.bounds import clopper_pearson, fdp, gaussian, steinke
from calyx.audit.bounds.guesses import LEVEL, Coins, Scores, ceiling, guess_counts
from calyx.audit.bounds.scores import likelihood_scores
from calyx.audit.evidence.store import Arrays, EvidenceStore
from calyx.audit.findings.measured import client_canaries
from calyx.audit.findings.measured.client_canaries import ClientCanarySection
from calyx.audit.findings.measured.mechanism_checks import (
    NoiseMeasured,
    SignalMeasured,
    SumsComputedAgain,
    noise_measured,
    signal_measured,
    sums_computed_again,
)
from calyx.audit.findings.measured.noise_law import Remainder, remains
from calyx.audit.findings.measured.roc import RocPoint, roc_points
from calyx.audit.finished_run import AuditedRun
from calyx.audit.section import Section
from calyx.audit.subsampled import HYPOTHESES, subsampled
from calyx.shared.errors import EvidenceError
from calyx.shared.metric_facts import ACCURACY, MetricFacts
from calyx.shared.privacy.accounting import spent
from calyx.shared.privacy.epsilon_text import epsilon_text, lower_bound_text

# The observer that knows most comes last: its bound is the headline's.
_OBSERVERS = ("public", "informed")


class Observer(Section):
    """What one observer could tell."""

    observer: str
    knows: str
    scoring: str
    steinke: float
    fdp: float
    clopper_pearson: float
    gaussian: float = Field(description="model based: the scores are taken for two Gaussians")
    auc: float
    roc: tuple[RocPoint, ...]
    noise: NoiseMeasured
    signal: SignalMeasured

    @property
    def proven(self) -> float:
        """The largest bound that assumes nothing about the scores."""
        return max(self.steinke, self.fdp, self.clopper_pearson)


class CanarySection(Section):
    """The canary audit."""

    canaries: int
    included: int
    guesses: tuple[int, ...] = Field(description="numbers of guesses, fixed beforehand")
    confidence: float
    ceiling: float = Field(description="largest epsilon that these guesses can show")
    ceilings: dict[str, float] = Field(
        description="by method, the bound if the scores told all canaries apart"
    )
    observers: tuple[Observer, ...]
    sums: SumsComputedAgain
    remainder: Remainder | None = Field(description="None where records are sampled")
    guarantee: float | None
    violated: bool = Field(
        description="a bound, the noise or the clipping contradicts the guarantee"
    )
    unit_matches: bool = Field(description="canaries are records, and the guarantee is for records")
    committed_before_round_1: bool
    metric: MetricFacts = Field(description="the headline of the run's task")
    value_with_canaries: float | None = Field(description="of that metric")
    value_without: float | None
    value_cost: float | None = Field(description="what the canaries cost; negative for a gain")
    accuracy_with_canaries: float | None = Field(description="None: the task has no accuracy")
    accuracy_without: float | None
    accuracy_cost: float | None
    answer: str


def found(run: AuditedRun, store: EvidenceStore) -> CanarySection | ClientCanarySection | None:
    """What canaries of the guarantee's unit showed, records or clients; None without any."""
    return find(run, store) or client_canaries.find(run, store)


def find(run: AuditedRun, store: EvidenceStore) -> CanarySection | None:
    """Bounds from the evidence, None if there were no canary records.

    Raises:
        EvidenceError: the coins are not those that were committed to.
    """
    if not store.has(NAME):
        return None
    promised, facts = store.get_json(COMMITMENT), store.get_json(f"{NAME}-run")
    arrays = store.get_arrays(NAME)
    coins: Coins = arrays["coins"].astype(np.bool_)
    if commitment(coins, arrays["nonce"].tobytes()) != promised["sha256"]:
        raise EvidenceError("the coins of the canaries are not those committed to before round 1")
    delta = run.config.privacy.delta
    epsilon = max(spent(ledger.events, delta, "record").epsilon for ledger in run.ledgers)
    names = [name for name in _OBSERVERS if name in arrays]
    observers = tuple(observed(name, arrays, facts, promised["insiders"], delta) for name in names)
    sums = sums_computed_again(facts["disagreements"])
    remainder = remains(store.get_arrays(REMAINDERS)) if store.has(REMAINDERS) else None
    faults = [o.proven > epsilon or o.noise.too_little for o in observers]
    faults += [not o.signal.as_planned for o in observers]
    faults += [not sums.agree, remainder is not None and not remainder.as_planned]
    violated = any(faults)
    metric = run.judged_by[0]
    headline, accuracy = _with_canaries(metric, facts), _with_canaries(ACCURACY, facts)
    return CanarySection(
        canaries=len(coins),
        included=int(coins.sum()),
        guesses=guess_counts(len(coins)),
        confidence=1 - LEVEL,
        ceiling=ceiling(max(guess_counts(len(coins))), LEVEL / len(guess_counts(len(coins)))),
        ceilings=_ceilings(coins, delta, facts),
        observers=observers,
        sums=sums,
        remainder=remainder,
        guarantee=epsilon if math.isfinite(epsilon) else None,
        violated=violated,
        unit_matches=run.config.privacy.unit == "record",
        committed_before_round_1=store.index(COMMITMENT) < store.index(NAME),
        metric=metric,
        value_with_canaries=headline.value,
        value_without=headline.without,
        value_cost=headline.cost,
        accuracy_with_canaries=accuracy.value,
        accuracy_without=accuracy.without,
        accuracy_cost=accuracy.cost,
        answer=_answer(observers, epsilon, violated=violated),
    )


@dataclass(frozen=True)
class _WithCanaries:
    """A metric of the run with canaries and of the run itself."""

    value: float | None
    without: float | None
    cost: float | None


def _with_canaries(metric: MetricFacts, facts: Mapping[str, Any]) -> _WithCanaries:
    if "metrics_without" in facts:
        value = facts["metrics_with_canaries"].get(metric.name)
        without = facts["metrics_without"].get(metric.name)
    else:
        # Evidence from before there were tasks.
        value, without = facts["accuracy_with_canaries"], facts["accuracy_without"]
    is_known = value is not None and without is not None
    return _WithCanaries(value, without, metric.cost(value, without) if is_known else None)


def observed(
    name: str, arrays: Arrays, facts: dict[str, float], insiders: int, delta: float
) -> Observer:
    """One observer's bounds.

    Args:
        name: ``public`` or ``informed``.
        arrays: the evidence: ``coins``, ``rates`` and ``signals`` (canaries,), and projections and
            noise (rounds, canaries) under the observer's name.
        facts: of the repeated run, as in its evidence.
        insiders: clients that collude with the informed observer.
        delta: of the guarantee.
    """
    coins: Coins = arrays["coins"].astype(np.bool_)
    projections, noise, rates = arrays[name], arrays[f"{name}-noise"], arrays["rates"]
    single = facts["steps_per_round"] == 1
    # It is not seen which of several steps drew a canary: rounds are weighted as if all had.
    scores = likelihood_scores(projections, rates if single else 1.0, noise)
    sampled = single and bool((rates < 1).any())
    return Observer(
        observer=name,
        knows=_knows(name, insiders),
        scoring="likelihood ratio over all rounds" if sampled else "sum over all rounds",
        steinke=steinke.lower_bound(scores, coins, delta),
        fdp=_fdp(scores, coins, delta, facts),
        clopper_pearson=clopper_pearson.lower_bound(scores, coins, delta),
        gaussian=gaussian.lower_bound(scores, coins, delta),
        auc=_auc(scores, coins),
        roc=tuple(roc_points(scores, coins)),
        noise=noise_measured(projections, noise, coins),
        signal=signal_measured(projections, noise, arrays["signals"], coins),
    )


def _knows(name: str, insiders: int) -> str:
    if name == "public":
        return "what is released, and nothing else"
    colluding = f", and what {insiders} colluding clients sent" if insiders else ""
    return f"what is released, every record but the canaries{colluding}"


def _ceilings(coins: Coins, delta: float, facts: dict[str, float]) -> dict[str, float]:
    everything = coins.astype(np.float64)
    return {
        "steinke": steinke.lower_bound(everything, coins, delta),
        "fdp": _fdp(everything, coins, delta, facts),
        "clopper_pearson": clopper_pearson.lower_bound(everything, coins, delta),
    }


def _fdp(scores: Scores, coins: Coins, delta: float, facts: dict[str, float]) -> float:
    """Among the curves of the run's own kind of mechanism: sampled steps, or one Gaussian."""
    rate = facts["sampling_rate"]
    if rate == 1:
        return fdp.lower_bound(scores, coins, delta)
    family = subsampled(rate, round(facts["rounds"] * facts["steps_per_round"]))
    return fdp.lower_bound_among(family, HYPOTHESES, scores, coins, delta)


def _auc(scores: Scores, coins: Coins) -> float:
    """Chance that an included canary has the higher score (Mann, Whitney 1947)."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores)] = np.arange(1, len(scores) + 1)
    inside = int(coins.sum())
    outside = len(coins) - inside
    if not inside or not outside:
        return 0.5
    return float((ranks[coins].sum() - inside * (inside + 1) / 2) / (inside * outside))


def _answer(observers: Iterable[Observer], epsilon: float, *, violated: bool) -> str:
    # The observer that knows most comes last. Fixed beforehand: the larger of two observers' bounds
    # would be too large too often.
    *_, best = observers
    shown = f"at least {lower_bound_text(best.proven)}" if best.proven > 0 else "nothing above 0"
    if not math.isfinite(epsilon):
        return f"Nothing is guaranteed; the canaries show an epsilon of {shown}."
    if violated:
        return (
            f"THE GUARANTEE DOES NOT HOLD: the canaries show an epsilon of {shown}, or noise or "
            f"clipping that is not the plan's, and {epsilon_text(epsilon)} is promised."
        )
    answer = (
        f"The canaries show an epsilon of {shown}, with 95 % confidence; "
        f"{epsilon_text(epsilon)} is promised. They do not contradict the guarantee."
    )
    if best.gaussian > epsilon:
        answer += (
            f" The bound of the Gaussian model, {lower_bound_text(best.gaussian)}, lies above it. "
            "Of audits of a guarantee that just holds, one in forty shows that: audit once more."
        )
    return answer
