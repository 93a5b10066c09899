"""Is the auditor itself right? Measured on mechanisms whose epsilon is known.

* *Null*: canaries whose scores say nothing. A bound above 0 is a false alarm; at 95 % confidence
  there may be one in at most 5 % of the runs.
* *Coverage*: ideal canaries of Gaussian mechanisms. A bound above the true epsilon is an error; at
  least 95 % of the runs must be without.
* *Pins*: published figures of Steinke, Nasr, Jagielski 2023.
* *Mutant*: the same bound without its delta term, a known fault. The pins must catch it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from audit.bounds import clopper_pearson, fdp, gaussian, steinke
from audit.bounds.gdp import mu_of
from audit.bounds.guesses import LEVEL, Coins, Guesses, Scores

Bound = Callable[[Scores, Coins, float], float]
Progress = Callable[[str, float], None]

BOUNDS: dict[str, Bound] = {
    "steinke": steinke.lower_bound,
    "fdp": fdp.lower_bound,
    "clopper_pearson": clopper_pearson.lower_bound,
    "gaussian": gaussian.lower_bound,
}
CANARIES, DELTA = 1000, 1e-5
EPSILONS = (1.0, 2.0, 4.0, 8.0)
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
        coverage: by bound and true epsilon, share of runs whose bound is not above it.
        pins: published figures beside those computed here.
        delta_mutant_caught: whether the pins tell the bound without its delta term apart.
        runs: null runs.
    """

    null_positive_rate: dict[str, float]
    coverage: dict[str, dict[float, float]]
    pins: tuple[Pin, ...]
    delta_mutant_caught: bool
    runs: int

    @property
    def passed(self) -> bool:
        """Whether everything is as it must be."""
        return (
            all(rate <= LEVEL for rate in self.null_positive_rate.values())
            and all(share >= 1 - LEVEL for by in self.coverage.values() for share in by.values())
            and all(pin.holds for pin in self.pins)
            and self.delta_mutant_caught
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "null_positive_rate": self.null_positive_rate,
            "coverage": {
                name: {f"{epsilon:g}": share for epsilon, share in by.items()}
                for name, by in self.coverage.items()
            },
            "pins": [{**asdict(pin), "holds": pin.holds} for pin in self.pins],
            "delta_mutant_caught": self.delta_mutant_caught,
            "null_runs": self.runs,
            "passed": self.passed,
        }


def ideal_canaries(mu: float, canaries: int, seed: int) -> tuple[Scores, Coins]:
    """Scores of a mu-GDP mechanism: unit Gaussians, shifted by mu where the coin was heads."""
    generator = np.random.default_rng(seed)
    coins = generator.random(canaries) < 0.5
    return generator.normal(size=canaries) + mu * coins, coins


def run(
    *, null_runs: int = 1000, coverage_runs: int = 200, progress: Progress = lambda *_: None
) -> SelfTest:
    """Test the bounds; the same seeds each time, so the same figures.

    Args:
        null_runs: runs in which nothing is leaked.
        coverage_runs: runs at each known epsilon.
        progress: told what is being done, and how much of it is done, 0 to 1.
    """
    alarms = dict.fromkeys(BOUNDS, 0)
    for seed in range(null_runs):
        scores, coins = ideal_canaries(0.0, CANARIES, seed)
        for name, bound in BOUNDS.items():
            alarms[name] += bound(scores, coins, DELTA) > 0
        progress("null runs", (seed + 1) / null_runs)
    covered = {name: dict.fromkeys(EPSILONS, 0) for name in BOUNDS}
    for number, epsilon in enumerate(EPSILONS):
        mu = mu_of(epsilon, DELTA)
        for seed in range(coverage_runs):
            scores, coins = ideal_canaries(mu, CANARIES, null_runs + seed)
            for name, bound in BOUNDS.items():
                covered[name][epsilon] += bound(scores, coins, DELTA) <= epsilon
            done = number * coverage_runs + seed + 1
            progress("coverage", done / (coverage_runs * len(EPSILONS)))
    pins = _pins(steinke.epsilon_of_guesses)
    mutant = _pins(lambda made, delta: steinke.epsilon_of_guesses(made, 0.0 * delta))
    return SelfTest(
        null_positive_rate={name: count / null_runs for name, count in alarms.items()},
        coverage={
            name: {epsilon: count / coverage_runs for epsilon, count in by.items()}
            for name, by in covered.items()
        },
        pins=pins,
        delta_mutant_caught=not all(pin.holds for pin in mutant),
        runs=null_runs,
    )


def _pins(bound: Callable[[Guesses, float], float]) -> tuple[Pin, ...]:
    published = (
        Pin(Guesses(1000, 100, 75), 1e-4, 0.673, 0.0),
        Pin(Guesses(100_000, 1510, 1439), 1e-5, 2.675, 0.0),
    )
    return tuple(replace(pin, found=bound(pin.guesses, pin.delta)) for pin in published)
