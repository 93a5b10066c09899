"""What canary clients showed: an estimate of epsilon for the unit *client*, beside the guarantee.

Two Gaussians are fitted, one to the cosines of the canaries and one, known, for clients that took
no part (`audit.bounds.cosine`). An estimate has no confidence level and may lie above the truth; it
is judged by what chance makes of so few canaries.
"""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from audit.attacks.client_canaries import NAME
from audit.audited_run import AuditedRun
from audit.bounds.cosine import epsilon_estimate
from audit.bounds.guesses import LEVEL
from audit.evidence import EvidenceStore
from audit.report.section import AttackSection, LowerBound
from shared.privacy.accounting import spent
from shared.privacy.epsilon_text import epsilon_text

_RESAMPLES = 400


class ClientCanarySection(AttackSection):
    """The audit by canary clients."""

    canaries: int
    estimate: float = Field(description="of epsilon at the delta of the guarantee")
    low: float = Field(description="95 % of resampled canaries give at least this, or so much")
    high: float = Field(description="and at most this")
    guarantee: float | None
    violated: bool = Field(description="all but 1 in 1,000 resamples lie above the guarantee")


def find(run: AuditedRun, store: EvidenceStore) -> ClientCanarySection | None:
    """The estimate from the evidence, None if there were no canary clients."""
    if not store.has(NAME):
        return None
    facts, cosines = store.get_json(f"{NAME}-run"), store.get_arrays(NAME)["cosines"]
    delta, size = run.config.privacy.delta, int(facts["dimension"])
    epsilon = max(spent(ledger.events, delta, "client").epsilon for ledger in run.ledgers)
    estimate = epsilon_estimate(cosines, size, delta)
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(cosines), size=(_RESAMPLES, len(cosines)))
    resampled = [epsilon_estimate(cosines[chosen], size, delta) for chosen in drawn]
    low, high = (float(np.quantile(resampled, level)) for level in (LEVEL / 2, 1 - LEVEL / 2))
    violated = float(np.quantile(resampled, 0.001)) > epsilon
    told = f"about {estimate:.2f} ({low:.2f} to {high:.2f})"
    promised = (
        f"{epsilon_text(epsilon)} is promised" if math.isfinite(epsilon) else "nothing is promised"
    )
    return ClientCanarySection(
        title="How much does one client show in the model?",
        answer=(
            f"THE GUARANTEE DOES NOT HOLD: canary clients show an epsilon of {told}; {promised}."
            if violated
            else f"Canary clients show an epsilon of {told}; {promised}. This is an estimate, not "
            "a bound."
        ),
        setup={
            "Canaries": f"{len(cosines)} clients, in {facts['repeats']} repetitions of the run",
            "Statistic": "cosine of a canary's direction with the movement of the model from the "
            "first round to the last (Andrew et al. 2023)",
            "Interval": "95 %, from resampled canaries",
        },
        bounds=(
            LowerBound(
                method="cosine",
                observer="public",
                kind="estimate",
                epsilon=estimate,
                delta=delta,
                confidence=1 - LEVEL,
            ),
        ),
        caveats=(
            "An estimate by two fitted Gaussians has no level of confidence.",
            "Every client is a canary, so nothing is learned in the repetitions.",
        ),
        canaries=len(cosines),
        estimate=estimate,
        low=low,
        high=high,
        guarantee=epsilon if math.isfinite(epsilon) else None,
        violated=violated,
    )
