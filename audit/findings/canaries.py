"""What canaries showed: lower bounds on epsilon beside the guarantee, and the noise that was there.

Scores are made from the projections in the evidence (`audit.attacks.canaries`):

* full batches, or several local steps in a round: the sum over rounds, the best for Gaussian
  noise of one size;
* Poisson batches of one step a round: sum of log(1 - q + q exp((x_t - 1/2) / s^2)), the likelihood
  ratio of an observer of all rounds; s is the noise in units of the clip norm.

Canaries that were left out also measure the noise itself. Their projections vary by the noise, and
by what else is in the sum; less than the noise says that noise is missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import norm

from audit.attacks.canaries import COMMITMENT, NAME, commitment
from audit.audited_run import AuditedRun
from audit.bounds import clopper_pearson, fdp, gaussian, steinke
from audit.bounds.guesses import LEVEL, Coins, Scores, ceiling, guess_counts
from audit.bounds.scores import likelihood_scores
from audit.evidence import EvidenceStore
from audit.report.section import Section
from audit.subsampled import HYPOTHESES, subsampled
from shared.errors import EvidenceError
from shared.privacy.accounting import spent

# Chance that noise of the right size is called wrong.
NOISE_LEVEL = 1e-4
# Relative size of what rounding to the grid, and single precision in the gradients, may add.
_ROUNDING = 1e-3
_KNOWS = {
    "public": "what is released, and nothing else",
    "informed": "what is released, and every record but the canaries",
}


class RocPoint(Section):
    """One threshold: rates, and 95 % limits of the true positive rate."""

    false_positive_rate: float
    true_positive_rate: float
    low: float
    high: float


class NoiseMeasured(Section):
    """Noise in what was released, measured on canaries that were left out."""

    expected: float = Field(description="standard deviation by the plan, in clip norms")
    measured: float
    p_value: float = Field(description="chance of so little noise if the plan was followed")
    too_little: bool


class Remainder(Section):
    """Released sums less everything but the noise, as the auditor alone can compute it."""

    energy_ratio: float = Field(description="squared norm over what the plan's noise would give")
    energy_p_value: float = Field(description="two-sided")
    largest_cosine: float = Field(description="of two rounds' noise, absolute")
    cosine_p_value: float
    as_planned: bool


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
    ceiling: float = Field(description="largest epsilon that so many guesses can show")
    ceilings: dict[str, float] = Field(
        description="by method, the bound if the scores told all canaries apart"
    )
    observers: tuple[Observer, ...]
    remainder: Remainder | None = Field(description="None where records are sampled")
    guarantee: float | None
    violated: bool = Field(description="a bound, or the noise, contradicts the guarantee")
    unit_matches: bool = Field(description="canaries are records, and the guarantee is for records")
    committed_before_round_1: bool
    accuracy_with_canaries: float
    accuracy_without: float
    answer: str


def find(run: AuditedRun, store: EvidenceStore) -> CanarySection | None:
    """Bounds from the evidence, None if there were no canaries.

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
    privacy = run.config.privacy
    epsilon = max(spent(ledger.events, privacy.delta, "record").epsilon for ledger in run.ledgers)
    observers = tuple(
        observed(name, arrays[name], coins, privacy.delta, facts) for name in promised["observers"]
    )
    remainder = remains(arrays, facts) if "energies" in arrays else None
    violated = any(o.proven > epsilon or o.noise.too_little for o in observers)
    violated |= remainder is not None and not remainder.as_planned
    return CanarySection(
        canaries=len(coins),
        included=int(coins.sum()),
        guesses=guess_counts(len(coins)),
        confidence=1 - LEVEL,
        ceiling=ceiling(max(guess_counts(len(coins))), LEVEL / len(guess_counts(len(coins)))),
        ceilings=_ceilings(coins, privacy.delta, facts),
        observers=observers,
        remainder=remainder,
        guarantee=epsilon if math.isfinite(epsilon) else None,
        violated=violated,
        unit_matches=privacy.unit == "record",
        committed_before_round_1=store.index(COMMITMENT) < store.index(NAME),
        accuracy_with_canaries=facts["accuracy_with_canaries"],
        accuracy_without=facts["accuracy_without"],
        answer=_answer(observers, epsilon, violated=violated),
    )


def observed(
    name: str,
    projections: NDArray[np.float64],
    coins: Coins,
    delta: float,
    facts: dict[str, float],
) -> Observer:
    """One observer's bounds.

    Args:
        name: ``public`` or ``informed``.
        projections: float64 (rounds, canaries).
        coins: which were in.
        delta: of the guarantee.
        facts: of the repeated run, as in its evidence.
    """
    spread = noise_spread(facts)
    rate = facts["sampling_rate"]
    by_likelihood = rate < 1 and facts["steps_per_round"] == 1
    scores = likelihood_scores(projections, rate, spread) if by_likelihood else projections.sum(0)
    return Observer(
        observer=name,
        knows=_KNOWS[name],
        scoring="likelihood ratio over all rounds" if by_likelihood else "sum over all rounds",
        steinke=steinke.lower_bound(scores, coins, delta),
        fdp=_fdp(scores, coins, delta, facts),
        clopper_pearson=clopper_pearson.lower_bound(scores, coins, delta),
        gaussian=gaussian.lower_bound(scores, coins, delta),
        auc=_auc(scores, coins),
        roc=tuple(_roc(scores, coins)),
        noise=noise_measured(projections, coins, facts),
    )


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


def noise_spread(facts: dict[str, float]) -> float:
    """Standard deviation of the noise in one round's projection, in clip norms.

    More clients than the guarantee counts on add more noise.
    """
    together = facts["contributors"] / facts["shares"]
    return facts["noise_multiplier"] * math.sqrt(together * facts["steps_per_round"])


def noise_measured(
    projections: NDArray[np.float64], coins: Coins, facts: dict[str, float]
) -> NoiseMeasured:
    """Compare the spread of left-out canaries within rounds with what the plan says.

    Rounds are centred, so that what is common to all canaries of a round does not count. What
    remains besides the noise (the other canaries, the records) only makes the spread larger, so
    only too little is a fault that this can show.
    """
    left_out = projections[:, ~coins]
    rounds, count = left_out.shape
    freedom = rounds * (count - 1)
    measured = float(np.sqrt(((left_out - left_out.mean(1, keepdims=True)) ** 2).sum() / freedom))
    expected = noise_spread(facts)
    # So many degrees of freedom make the chi-square distribution normal (Wilson, Hilferty 1931).
    ratio = (measured / expected) ** 2 if expected > 0 else math.inf
    corner = 2 / (9 * freedom)
    p_value = float(norm.cdf((ratio ** (1 / 3) - (1 - corner)) / math.sqrt(corner)))
    return NoiseMeasured(
        expected=expected, measured=measured, p_value=p_value, too_little=p_value < NOISE_LEVEL
    )


def remains(arrays: dict[str, NDArray[np.float64]], facts: dict[str, float]) -> Remainder:
    """Is what remains of the released sums noise of the planned size, new in every round?

    The squared norm of d Gaussian coordinates in T rounds is normal with relative deviation
    sqrt(2/(dT)), with a thousandth more for rounding. The cosine of two independent vectors is
    normal with deviation 1/sqrt(d); the largest of T - 1 is held to a T-1st of the level.
    """
    energies, cosines = arrays["energies"], arrays["cosines"]
    dimension, rounds = facts["dimension"], len(energies)
    ratio = float(energies.mean() / (dimension * noise_spread(facts) ** 2))
    deviation = abs(ratio - 1) - _ROUNDING
    energy_p = float(2 * norm.sf(max(deviation, 0.0) / math.sqrt(2 / (dimension * rounds))))
    largest = float(np.abs(cosines).max()) if len(cosines) else 0.0
    cosine_p = min(1.0, float(2 * norm.sf(largest * math.sqrt(dimension)) * max(len(cosines), 1)))
    return Remainder(
        energy_ratio=ratio,
        energy_p_value=energy_p,
        largest_cosine=largest,
        cosine_p_value=cosine_p,
        as_planned=energy_p >= NOISE_LEVEL and cosine_p >= NOISE_LEVEL,
    )


def _auc(scores: Scores, coins: Coins) -> float:
    """Chance that an included canary has the higher score (Mann, Whitney 1947)."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores)] = np.arange(1, len(scores) + 1)
    inside = int(coins.sum())
    outside = len(coins) - inside
    if not inside or not outside:
        return 0.5
    return float((ranks[coins].sum() - inside * (inside + 1) / 2) / (inside * outside))


def _roc(scores: Scores, coins: Coins) -> Iterable[RocPoint]:
    """Some twenty points, evenly spaced on a logarithmic axis of the false positive rate."""
    ordered = coins[np.argsort(-scores, kind="stable")]
    inside, outside = int(coins.sum()), int((~coins).sum())
    hits, alarms = np.cumsum(ordered), np.cumsum(~ordered)
    for wanted in sorted({round(x) for x in np.geomspace(1, max(outside, 1), 20)}):
        place = int(np.searchsorted(alarms, wanted))
        if place >= len(alarms):
            continue
        hit = int(hits[place])
        yield RocPoint(
            false_positive_rate=wanted / outside,
            true_positive_rate=hit / inside,
            low=clopper_pearson.at_least(hit, inside, LEVEL / 2),
            high=clopper_pearson.at_most(hit, inside, LEVEL / 2),
        )


def _answer(observers: Iterable[Observer], epsilon: float, *, violated: bool) -> str:
    # Who knows most comes last. Fixed beforehand: the larger of two observers' bounds would be
    # too large too often.
    *_, best = observers
    shown = f"at least {best.proven:.2f}" if best.proven > 0 else "nothing above 0"
    if not math.isfinite(epsilon):
        return f"Nothing is guaranteed; the canaries show an epsilon of {shown}."
    if violated:
        return (
            f"THE GUARANTEE DOES NOT HOLD: the canaries show an epsilon of {shown}, or noise that "
            f"is not the plan's, and {epsilon:.2f} is promised."
        )
    return (
        f"The canaries show an epsilon of {shown}, with 95 % confidence; {epsilon:.2f} is "
        "promised. They do not contradict the guarantee."
    )
