"""The least epsilon that the charges in the ledgers allow, whatever the accountants say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from calyx.audit.bounds.sigma_alone import Steps, least_epsilon
from calyx.shared.privacy.event import PrivacyEvent, Unit

# Accountants are right to a thousandth, and integer noise differs from Gaussian by less than one.
_TOLERANCE = 2e-3
# The number of ledgers with different charges that are examined.
_LOOKED_AT = 3


def is_below(epsilon: float, least: float) -> bool:
    """Whether a printed figure is lower than possible, by more than rounding."""
    return epsilon < least * (1 - _TOLERANCE)


def least_of(ledgers: Sequence[Sequence[PrivacyEvent]], delta: float, unit: Unit) -> float:
    """The largest of the least epsilons that the ledgers' noise allows; without any accountant.

    Args:
        ledgers: the events of each, none of them without noise.
    """
    each = {tuple(_steps_of(events, unit)) for events in ledgers}
    # Ledgers differ in their number of records; the costliest by this measure are near the top.
    costliest = sorted(
        each, key=lambda steps: -sum(s.count * (s.rate / s.noise) ** 2 for s in steps)
    )
    return max((least_epsilon(steps, delta) for steps in costliest[:_LOOKED_AT]), default=0.0)


def _steps_of(events: Sequence[PrivacyEvent], unit: Unit) -> list[Steps]:
    counts: Counter[tuple[float, float]] = Counter()
    for event in events:
        if event.unit == unit:
            counts[(event.noise_multiplier, event.sampling_rate)] += event.count
        else:
            # A client's release, for one of its records; an older ledger may mean either factor.
            counts[(event.noise_multiplier / (event.replacement_factor or 1), 1.0)] += event.count
    return [Steps(noise, rate, count) for (noise, rate), count in sorted(counts.items())]
