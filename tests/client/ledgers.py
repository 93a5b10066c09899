"""Charges and budgets for tests of ledgers."""

from __future__ import annotations

import hashlib

from calyx.client.ledger.ledger import Budget, Entry, Ledger
from calyx.shared.privacy.accounting import spent
from calyx.shared.privacy.event import PrivacyEvent

DELTA = 1e-5
FINGERPRINT = hashlib.sha256(b"these records").hexdigest()
EVENT = PrivacyEvent("gaussian", "record", 2.0, "full", 1.0, 1)
CLIENT_EVENT = PrivacyEvent("gaussian", "client", 2.0, "full", 1.0, 1)
UNPROTECTED = PrivacyEvent("none", "record", 0.0, "full", 1.0, 1)
ROOMY = Budget(1000.0, DELTA, "record")


def instruction(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def charge(
    ledger: Ledger,
    round: int,
    *,
    run: str = "run",
    event: PrivacyEvent = EVENT,
    budget: Budget = ROOMY,
    repeatable: bool = False,
) -> Entry:
    return ledger.charge(
        run=run,
        round=round,
        instruction=instruction(round),
        event=event,
        budget=budget,
        repeatable=repeatable,
    )


def budget_for(events: list[PrivacyEvent]) -> Budget:
    """The budget that these events use up to the last digit."""
    return Budget(spent(events, DELTA, "record").epsilon, DELTA, "record")
