"""What canary clients showed: a lower bound and an estimate of epsilon for the unit *client*.

The bound assumes that what a canary adds to the model is Gaussian (`calyx.audit.bounds.cosine`).
Beside it stands the estimate of Andrew et al. 2023. It has no confidence level and scatters widely,
so it is shown with the range that it takes by chance where the guarantee just holds; only the bound
decides whether the guarantee is contradicted.
"""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from calyx.audit.attacks.canaries.client import NAME, REMAINDERS
from calyx.audit.bounds.cosine import LARGEST_EPSILON, epsilon_estimate, mu_lower_bound
from calyx.audit.bounds.gdp import epsilon_of, mu_of
from calyx.audit.bounds.guesses import LEVEL
from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.findings.measured.noise_law import Remainder, remains
from calyx.audit.finished_run import AuditedRun
from calyx.audit.section import AttackSection, LowerBound
from calyx.shared.privacy.accounting import spent
from calyx.shared.privacy.epsilon_text import epsilon_text, lower_bound_text

_REPETITIONS = 400
# Chance that the guarantee is called contradicted where it just holds.
_ALARM_LEVEL = 1e-4


class ClientCanarySection(AttackSection):
    """The audit by canary clients."""

    canaries: int
    lower: float = Field(description="bound by the Gaussian model, at 95 % confidence")
    estimate: float = Field(description="by Andrew et al. 2023, at the delta of the guarantee")
    chance_low: float | None = Field(
        description="of 95 in 100 audits of a mechanism that has just the guaranteed epsilon, the "
        "estimate is at least this"
    )
    chance_high: float | None = Field(description="and at most this")
    guarantee: float | None
    remainder: Remainder | None = Field(
        description="None where a strategy other than averaging makes a model of the noisy mean"
    )
    violated: bool = Field(
        description="the bound lies above the guarantee, also at level 1e-4, or what remains of "
        "the releases is not the planned noise"
    )


def find(run: AuditedRun, store: EvidenceStore) -> ClientCanarySection | None:
    """The estimate from the evidence, None if there were no canary clients."""
    if not store.has(NAME):
        return None
    facts, cosines = store.get_json(f"{NAME}-run"), store.get_arrays(NAME)["cosines"]
    delta, size = run.config.privacy.delta, int(facts["dimension"])
    epsilon = max(spent(ledger.events, delta, "client").epsilon for ledger in run.ledgers)
    lower = epsilon_of(mu_lower_bound(cosines, size), delta)
    estimate = epsilon_estimate(cosines, size, delta)
    remainder = remains(store.get_arrays(REMAINDERS)) if store.has(REMAINDERS) else None
    missing = remainder is not None and not remainder.as_planned
    violated = missing or epsilon_of(mu_lower_bound(cosines, size, _ALARM_LEVEL), delta) > epsilon
    # Beyond that neither the estimate nor its range by chance says anything.
    is_estimable = epsilon < LARGEST_EPSILON
    chance = _by_chance(epsilon, delta, len(cosines), size) if is_estimable else None
    promise = epsilon_text(epsilon) if math.isfinite(epsilon) else "nothing"
    shown = f"canary clients show an epsilon of at least {lower_bound_text(lower)}"
    spread = (
        f" (of a mechanism that just keeps {promise} it would be between "
        f"{lower_bound_text(chance[0])} and {epsilon_text(chance[1])})"
        if chance
        else ""
    )
    return ClientCanarySection(
        title="How much does one client show in the model?",
        answer=(
            f"THE GUARANTEE DOES NOT HOLD: {shown}"
            + (", or what is released has not the planned noise" if missing else "")
            + f"; {promise} is promised."
            if violated
            else f"C{shown[1:]}, with 95 % confidence by a Gaussian model; {promise} is promised. "
            f"An estimate without confidence is {lower_bound_text(estimate)}{spread}."
        ),
        setup={
            "Canaries": f"{len(cosines)} clients, in {facts['repeats']} repetitions of the run",
            "Statistic": "cosine of a canary's direction with the movement of the model from the "
            "first round to the last (Andrew et al. 2023)",
        },
        bounds=(
            LowerBound(
                method="gaussian",
                observer="public",
                kind="model",
                epsilon=lower,
                delta=delta,
                confidence=1 - LEVEL,
            ),
            LowerBound(
                method="cosine",
                observer="public",
                kind="estimate",
                epsilon=estimate,
                delta=delta,
                confidence=0.0,
            ),
        ),
        caveats=(
            "The bound holds as far as what is added to the model is Gaussian.",
            "The estimate fits two Gaussians and has no level of confidence.",
            "Every client is a canary, so nothing is learned in the repetitions.",
        ),
        canaries=len(cosines),
        lower=lower,
        estimate=estimate,
        chance_low=chance[0] if chance else None,
        chance_high=chance[1] if chance else None,
        guarantee=epsilon if math.isfinite(epsilon) else None,
        remainder=remainder,
        violated=violated,
    )


def _by_chance(epsilon: float, delta: float, canaries: int, size: int) -> tuple[float, float]:
    """Where 95 in 100 estimates lie if the guarantee is just kept."""
    generator = np.random.default_rng(0)
    drawn = generator.normal(mu_of(epsilon, delta), size=(_REPETITIONS, canaries)) / math.sqrt(size)
    found = [epsilon_estimate(cosines, size, delta) for cosines in drawn]
    return float(np.quantile(found, LEVEL / 2)), float(np.quantile(found, 1 - LEVEL / 2))
