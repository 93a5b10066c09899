"""Is the auditor itself right? Measured on mechanisms whose epsilon is known.

* *Null*: canaries whose scores say nothing. A bound above 0 is a false alarm; at 95 % confidence
  there may be one in at most 5 % of the runs.
* *Coverage*: ideal canaries of Gaussian mechanisms. A bound above the true epsilon is an error; at
  least 95 % of the runs must be without one.
* *Sampled batches*: the same for the f-DP bound with curves from the accountant, on an observer of
  all rounds of Poisson-sampled steps.
* *Largest*: a report prints several bounds side by side, and people read the largest. The largest
  of those that assume nothing about the scores is held to the same limits.
* *Pins*: published figures of Steinke, Nasr, Jagielski 2023.
* *Mutant*: the same bound without its delta term, a known fault. The pins must catch it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from calyx.audit.bounds import clopper_pearson, fdp, gaussian, steinke
from calyx.audit.bounds.gdp import mu_of
from calyx.audit.bounds.guesses import LEVEL, Coins, Guesses, Scores, ceiling, guess_counts
from calyx.audit.bounds.scores import likelihood_scores
from calyx.audit.progress import Progress, untold
from calyx.audit.subsampled import HYPOTHESES, curve_of, subsampled
from calyx.shared.privacy.epsilon_text import epsilon_text

Bound = Callable[[Scores, Coins, float], float]

BOUNDS: dict[str, Bound] = {
    "steinke": steinke.lower_bound,
    "fdp": fdp.lower_bound,
    "clopper_pearson": clopper_pearson.lower_bound,
    "gaussian": gaussian.lower_bound,
}
# Those that assume nothing about the scores.
PROVEN = ("steinke", "fdp", "clopper_pearson")
LARGEST, SAMPLED = "largest_proven", "fdp_sampled"
CANARIES, DELTA = 1000, 1e-5
EPSILONS = (1.0, 2.0, 4.0, 8.0)
# Rate, number and noise multiplier of sampled steps; their epsilon at DELTA is 3.94.
_RATE, _STEPS, _NOISE = 0.1, 100, 1.4
_PIN_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Pin:
    """A published figure of the bound by Steinke et al.

    Attributes:
        guesses: canaries, guesses made and right.
        delta: of the guarantee.
        expected: lower bound at level .05.
        found: what this installation computes.
    """

    guesses: Guesses
    delta: float
    expected: float
    found: float

    @property
    def holds(self) -> bool:
        """Whether both agree to .001."""
        return abs(self.found - self.expected) <= _PIN_TOLERANCE


@dataclass(frozen=True)
class SelfTest:
    """What came out.

    Attributes:
        null_positive_rate: by bound, share of null runs with a bound above 0.
        largest_null_positive_rate: the same for the largest bound except the model-based one.
        coverage: by bound and true epsilon, share of runs whose bound is not above it.
        pins: published figures beside those computed here.
        delta_mutant_caught: whether the pins tell the bound without its delta term apart.
        runs: null runs.
    """

    null_positive_rate: dict[str, float]
    largest_null_positive_rate: float
    coverage: dict[str, dict[float, float]]
    pins: tuple[Pin, ...]
    delta_mutant_caught: bool
    runs: int

    @property
    def passed(self) -> bool:
        """Whether everything is as it must be."""
        alarms = (*self.null_positive_rate.values(), self.largest_null_positive_rate)
        return (
            all(rate <= LEVEL for rate in alarms)
            and all(share >= 1 - LEVEL for by in self.coverage.values() for share in by.values())
            and all(pin.holds for pin in self.pins)
            and self.delta_mutant_caught
        )

    @property
    def ceiling(self) -> float:
        """Largest epsilon that the self-test's canaries could show by guesses."""
        counts = guess_counts(CANARIES)
        return ceiling(max(counts), LEVEL / len(counts))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "null_positive_rate": self.null_positive_rate,
            "largest_null_positive_rate": self.largest_null_positive_rate,
            "coverage": {
                name: {epsilon_text(epsilon): share for epsilon, share in by.items()}
                for name, by in self.coverage.items()
            },
            "pins": [{**asdict(pin), "holds": pin.holds} for pin in self.pins],
            "delta_mutant_caught": self.delta_mutant_caught,
            "canaries": CANARIES,
            "ceiling": self.ceiling,
            "null_runs": self.runs,
            "passed": self.passed,
        }


def ideal_canaries(mu: float, canaries: int, seed: int) -> tuple[Scores, Coins]:
    """Scores of a mu-GDP mechanism: unit Gaussians, shifted by mu where the coin was heads."""
    generator = np.random.default_rng(seed)
    coins = generator.random(canaries) < 0.5
    return generator.normal(size=canaries) + mu * coins, coins


def sampled_canaries(canaries: int, seed: int) -> tuple[Scores, Coins]:
    """Scores by an observer of all rounds of Poisson-sampled Gaussian steps."""
    generator = np.random.default_rng(seed)
    coins = generator.random(canaries) < 0.5
    seen = _NOISE * generator.normal(size=(_STEPS, canaries))
    seen += (generator.random(seen.shape) < _RATE) & coins
    return likelihood_scores(seen, _RATE, _NOISE), coins


def run(
    *, null_runs: int = 1000, coverage_runs: int = 200, progress: Progress = untold
) -> SelfTest:
    """Test the bounds; the same seeds each time, so the same figures.

    Args:
        null_runs: runs in which nothing is leaked.
        coverage_runs: runs at each known epsilon.
        progress: receives what is being done and the share of it that is done, 0 to 1.
    """
    nothing = []
    for seed in range(null_runs):
        nothing.append(_all_bounds(*ideal_canaries(0.0, CANARIES, seed)))
        progress("null runs", (seed + 1) / null_runs)
    alarms = {name: _share(bounds[name] > 0 for bounds in nothing) for name in nothing[0]}
    largest_alarms = alarms.pop(LARGEST)
    coverage: dict[str, dict[float, float]] = {name: {} for name in (*BOUNDS, LARGEST)}
    for number, epsilon in enumerate(EPSILONS):
        mu = mu_of(epsilon, DELTA)
        found = []
        for seed in range(coverage_runs):
            found.append(_all_bounds(*ideal_canaries(mu, CANARIES, null_runs + seed)))
            done = number * coverage_runs + seed + 1
            progress("coverage", done / (coverage_runs * len(EPSILONS)))
        for name, by in coverage.items():
            by[epsilon] = _share(bounds[name] <= epsilon for bounds in found)
    coverage[SAMPLED] = _sampled_coverage(coverage_runs, null_runs, progress)
    mutant = _pins(lambda made, delta: steinke.epsilon_of_guesses(made, 0.0 * delta))
    return SelfTest(
        null_positive_rate=alarms,
        largest_null_positive_rate=largest_alarms,
        coverage=coverage,
        pins=_pins(steinke.epsilon_of_guesses),
        delta_mutant_caught=not all(pin.holds for pin in mutant),
        runs=null_runs,
    )


def _all_bounds(scores: Scores, coins: Coins) -> dict[str, float]:
    found = {name: bound(scores, coins, DELTA) for name, bound in BOUNDS.items()}
    return {**found, LARGEST: max(found[name] for name in PROVEN)}


def _sampled_coverage(runs: int, first_seed: int, progress: Progress) -> dict[float, float]:
    epsilon = curve_of(_NOISE, _RATE, _STEPS).epsilon(DELTA)
    family = subsampled(_RATE, _STEPS)
    covered = []
    for seed in range(runs):
        scores, coins = sampled_canaries(CANARIES, first_seed + seed)
        bound = fdp.lower_bound_among(family, HYPOTHESES, scores, coins, DELTA)
        covered.append(bound <= epsilon)
        progress("sampled batches", (seed + 1) / runs)
    return {epsilon: _share(covered)}


def _share(outcomes: Iterable[bool]) -> float:
    return float(np.mean(list(outcomes)))


def _pins(bound: Callable[[Guesses, float], float]) -> tuple[Pin, ...]:
    published = (
        Pin(Guesses(1000, 100, 75), 1e-4, 0.673, 0.0),
        Pin(Guesses(100_000, 1510, 1439), 1e-5, 2.675, 0.0),
    )
    return tuple(replace(pin, found=bound(pin.guesses, pin.delta)) for pin in published)
