"""What is added up: rounds, runs and restarts on the same records, as the ledgers have them."""

from __future__ import annotations

from collections import Counter

from pydantic import Field

from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.findings.promised.guarantee import finite
from calyx.audit.finished_run import AuditedRun
from calyx.audit.section import Section
from calyx.shared.privacy.accounting import spent
from calyx.shared.privacy.event import PrivacyEvent


class RunCost(Section):
    """One run in the ledgers."""

    run: str
    is_this_run: bool
    clients: int
    rounds: int
    charges: int
    epsilon: float | None = Field(description="of this run alone, largest over its clients")


class CompositionSection(Section):
    """Everything that the headline adds up."""

    runs: tuple[RunCost, ...]
    charges: int
    repeated_charges: int = Field(
        description="rounds charged more than once to a ledger: restarts of a real device, where "
        "each attempt counts"
    )
    answer: str


def find(run: AuditedRun, _: EvidenceStore) -> CompositionSection:
    """List the runs in the ledgers and the cost of each."""
    delta, unit = run.config.privacy.delta, run.config.privacy.unit
    names = sorted({e.run for ledger in run.ledgers for e in ledger.entries} | {run.name})
    costs, repeated = [], 0
    for name in names:
        by_client: list[list[PrivacyEvent]] = []
        rounds: set[int] = set()
        for ledger in run.ledgers:
            entries = [entry for entry in ledger.entries if entry.run == name]
            counts = Counter(entry.round for entry in entries)
            repeated += sum(count - 1 for count in counts.values())
            rounds |= set(counts)
            if entries:
                by_client.append([entry.event for entry in entries])
        costs.append(
            RunCost(
                run=name,
                is_this_run=name == run.name,
                clients=len(by_client),
                rounds=len(rounds),
                charges=sum(map(len, by_client)),
                epsilon=finite(
                    max((spent(e, delta, unit).epsilon for e in by_client), default=0.0)
                ),
            )
        )
    charges = sum(cost.charges for cost in costs)
    others = len(costs) - 1
    counted = "one run" if not others else f"{others + 1} runs"
    return CompositionSection(
        runs=tuple(costs),
        charges=charges,
        repeated_charges=repeated,
        answer=f"The ledgers hold {charges:,} charges of {counted}. The headline is computed from "
        "all of them together, not round by round. A simulation gives each run ledgers of its own: "
        "other runs on the same records, for example to choose settings, are not in them.",
    )
