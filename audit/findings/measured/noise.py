"""Do the clients add the noise that the plan says? From the noise on its own.

`calyx.audit.attacks.noise.noise` leaves the noise of calls to the clients' own code. Its size,
shape, place and novelty are tested as those of released sums are
(`calyx.audit.findings.measured.noise_law`). Where noise goes into integers, rounding is tested too.
A coordinate at m + f grid steps, f in (0, 1), becomes m + K + N: K is 1 with probability f, a new
draw each time and in secret, and N is a share of Skellam noise.

* `rounding`: chi-square of value less m against that law, for each f; rounding to the nearest step
  fails it, and so does a share of any other law;
* `repeated`: cosines of what any two calls added; a dither that all calls share repeats;
* `clamp`: coordinates far beyond it must come out at the clamp, but for the noise. Without it they
  would leave their field, and no bound on what is sealed would hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import chi2, norm, skellam

from calyx.audit.attacks.noise.noise import NAME, SEALING
from calyx.audit.attacks.noise.sealing_probe import LITTLE
from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.findings.measured.noise_law import NOISE_LEVEL, Remainder, all_pairs, remains
from calyx.audit.finished_run import AuditedRun
from calyx.audit.section import AttackSection, Section

Integers = NDArray[np.int64]

# Bins with fewer expected values are merged with their neighbours.
_LEAST_EXPECTED = 10.0


class Rounding(Section):
    """Rounding to the grid, with so little noise that it can be seen."""

    values: int = Field(description="coordinates that were looked at, over all calls")
    mean_error: float = Field(description="of value less what was asked for, in grid steps")
    law_p_value: float = Field(description="chi-square, for the worst of all fractions of a step")
    largest_cosine: float = Field(description="of what two calls added, absolute")
    repeated_p_value: float
    clamped_error: float = Field(description="mean distance from the clamp, in grid steps")
    clamp_p_value: float = Field(description="two-sided; 0 if a value is beyond clamp and noise")
    as_planned: bool


class NoiseSection(AttackSection):
    """The noise by itself."""

    remainder: Remainder
    rounding: Rounding | None = Field(description="None where noise is no integer")
    violated: bool = Field(description="the noise, or rounding, is not the plan's")


def find(run: AuditedRun, store: EvidenceStore) -> NoiseSection | None:
    """Test the evidence; None if the noise was not looked at by itself."""
    if not store.has(NAME):
        return None
    remainder = remains(store.get_arrays(NAME))
    rounding = rounded(store.get_arrays(SEALING)) if store.has(SEALING) else None
    violated = not remainder.as_planned or (rounding is not None and not rounding.as_planned)
    return NoiseSection(
        title="Is the noise by itself what the plan says?",
        answer=_answer(remainder, rounding),
        setup={"Looked at": f"{remainder.vectors} vectors, {_where(run)}"},
        caveats=(
            "These are calls of the code that clients run. That the run was made by this code is "
            "what its repetition shows, and only for a simulation.",
            "Noise that follows its law may still come from a generator that someone can predict.",
        ),
        remainder=remainder,
        rounding=rounding,
        violated=violated,
    )


def rounded(arrays: Mapping[str, NDArray[Any]]) -> Rounding:
    """Test rounding and clamp.

    Args:
        arrays: as `calyx.audit.attacks.noise.sealing_probe.with_little_noise` gives them.
    """
    wholes, fractions, values = arrays["wholes"], arrays["fractions"], arrays["values"]
    clamp, limit = int(arrays["clamp"]), int(arrays["limit"])
    added = values - (wholes + fractions)
    each = [_law(values[:, fractions == f] - wholes[fractions == f], f) for f in set(fractions)]
    law_p = min(1.0, min(each) * len(each))
    largest, _, repeated_p = all_pairs(added)
    errors = arrays["beyond"].astype(np.float64) - clamp
    deviation = abs(float(errors.mean())) / math.sqrt(LITTLE / errors.size)
    clamp_p = float(2 * norm.sf(deviation)) if (np.abs(errors) <= limit).all() else 0.0
    return Rounding(
        values=values.size,
        mean_error=float(added.mean()),
        law_p_value=law_p,
        largest_cosine=largest,
        repeated_p_value=repeated_p,
        clamped_error=float(errors.mean()),
        clamp_p_value=clamp_p,
        as_planned=min(law_p, repeated_p, clamp_p) >= NOISE_LEVEL,
    )


def _law(above: Integers, fraction: float) -> float:
    """Chance that K + N gives a histogram of `above` this uneven."""
    reach = int(max(np.abs(above).max(), 20))
    places = np.arange(-reach, reach + 1)
    half = LITTLE / 2
    chances = (1 - fraction) * skellam.pmf(places, half, half)
    chances += fraction * skellam.pmf(places - 1, half, half)
    counts = np.bincount(above.ravel() + reach, minlength=len(places)).astype(np.float64)
    expected = above.size * chances / chances.sum()
    often = np.flatnonzero(expected >= _LEAST_EXPECTED)
    if len(often) < 2:
        return 1.0
    first, last = often[0], often[-1]

    def merged(x: NDArray[np.float64]) -> NDArray[np.float64]:
        middle = x[first : last + 1].copy()
        middle[0] += x[:first].sum()
        middle[-1] += x[last + 1 :].sum()
        return middle

    counts, expected = merged(counts), merged(expected)
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), len(counts) - 1))


def _where(run: AuditedRun) -> str:
    privacy = run.config.privacy
    if privacy.noise == "distributed":
        return "each a client's share, in calls of the code that seals"
    if privacy.unit == "record":
        return "each one step of private training on a few records, less their clipped gradients"
    return "each a client's update in the repeated run, less what it had learned"


def _answer(remainder: Remainder, rounding: Rounding | None) -> str:
    faults = []
    if not remainder.as_planned:
        faults.append("noise of the planned size and shape, new in every place and call")
    if rounding is not None and not rounding.as_planned:
        faults.append("rounding and clamp as the plan's guarantee needs them")
    if faults:
        return (
            f"THE GUARANTEE DOES NOT HOLD: the clients' code does not add {', nor '.join(faults)}."
        )
    also = ", and rounding is secret and unbiased" if rounding is not None else ""
    return (
        f"The clients' code adds noise of the planned size and law, new in every call{also} "
        f"({100 * remainder.energy_ratio:.1f} % of the planned energy)."
    )
