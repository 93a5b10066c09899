"""What is guaranteed: epsilon computed again from the events in the clients' ledgers.

Nothing is taken from the server's journal. The headline is the largest epsilon over all clients, at
the configured delta, over every charge in each ledger: all rounds, all runs, all restarts on the
same records.

* **Sampling.** Where the batch log does not show the sampling that a charge assumes, the charge is
  counted without amplification: as one use of the mechanism on all records for every batch that the
  most-used record was in, or for every batch if there is no log
  (`calyx.audit.findings.promised.sampling`). If that is less than what was charged, the charge
  stands.
* **Curve.** The same composition at many deltas, and what follows from it
  (`calyx.audit.findings.promised.privacy_curve`).
* **Other units.** What a client-level run guarantees for one record, or for a client whose data are
  replaced, is less: two clipped updates are up to 2C apart (`calyx.shared.privacy.accounting`).
* **delta.** From 1/n on, where n counts everything that the guarantee covers, (eps, delta) allows
  a whole record to be given away (`delta_is_small`), and the report calls nothing guaranteed.
* **Least epsilon.** The least epsilon that noise, rate and steps allow is computed a second way
  (`calyx.audit.bounds.sigma_alone`). A headline below it is a fault of the accountants, and
  contradicted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.findings.promised import sampling
from calyx.audit.findings.promised.least_epsilon import is_below, least_of
from calyx.audit.findings.promised.privacy_curve import (
    CurvePoint,
    GroupCost,
    WorstTest,
    epsilon_curve,
    gaussian_mu,
    group_costs,
    worst_tests,
)
from calyx.audit.findings.promised.round_costs import RoundCosts, costs_by_round
from calyx.audit.findings.promised.sampling import SamplingSection
from calyx.audit.finished_run import AuditedRun, ClientLedger
from calyx.audit.section import Section
from calyx.shared.config import Config
from calyx.shared.privacy.accounting import Spent, delta_is_small, spent
from calyx.shared.privacy.event import PrivacyEvent, Unit


class ClientCost(Section):
    """What one client's ledger adds up to; None is infinite."""

    client: int
    records: int
    charges: int
    epsilon_pld: float | None
    epsilon_rdp: float | None
    epsilon: float | None
    ledger_head: str


class GuaranteeSection(Section):
    """The formal guarantee."""

    is_private: bool
    epsilon: float | None = Field(description="the headline; None is infinite: no guarantee")
    epsilon_pld: float | None = Field(description="main accountant; None: it has no bound")
    epsilon_rdp: float | None = Field(description="second accountant")
    epsilon_as_charged: float | None = Field(description="before what was found on sampling")
    epsilon_target: float | None = Field(description="what the configuration promises")
    delta: float
    units: int = Field(description="n: records, or clients, that the guarantee covers")
    delta_times_units: float = Field(description="expected units whose promise may fail")
    delta_is_small: bool = Field(description="whether delta is below 1/n")
    outside: tuple[str, ...] = Field(
        description="what is also released and not covered by epsilon, by the configuration"
    )
    epsilon_record: float | None = Field(
        description="for one record, or for a client whose data are replaced by any others, where "
        "the unit is client; None: no bound, or the unit is record"
    )
    unit: Unit
    relation: str
    neighbours: str = Field(description="the relation in plain words")
    several_records: tuple[GroupCost, ...]
    curve: tuple[CurvePoint, ...]
    gdp_mu: float | None
    worst_tests: tuple[WorstTest, ...]
    by_client: tuple[ClientCost, ...]
    by_round: tuple[RoundCosts, ...]
    note: str = Field(description="what was done to the headline, empty if nothing")
    least_epsilon: float | None = Field(
        description="what noise, rate and steps alone leave at least, computed without the "
        "accountants; None where nothing is guaranteed"
    )
    below_least: bool = Field(description="the headline is below it, so no accountant can be right")


def find(run: AuditedRun, store: EvidenceStore) -> GuaranteeSection:
    """Compute the guarantee of a run from its ledgers."""
    return computed(run, sampling.find(run, store))


def computed(run: AuditedRun, sampled: SamplingSection) -> GuaranteeSection:
    """The guarantee, given what is known about sampling."""
    privacy, plan = run.config.privacy, run.plans[0]
    unit, delta = privacy.unit, privacy.delta
    trusted = sampled.verdict in ("as assumed", "not needed")
    ledgers = run.ledgers
    counted = [
        ledger.events if trusted else _dearer(run, ledger, delta, unit) for ledger in ledgers
    ]
    costs = [spent(events, delta, unit) for events in counted]
    worst = max(range(len(costs)), key=lambda client: costs[client].epsilon)
    charged = max(spent(ledger.events, delta, unit).epsilon for ledger in ledgers)
    curve = epsilon_curve(counted[worst], unit)
    units = sum(run.record_counts) if unit == "record" else len(ledgers)
    moved = not trusted and costs[worst].epsilon != charged
    least = least_of(counted, delta, unit) if math.isfinite(costs[worst].epsilon) else None
    return GuaranteeSection(
        is_private=math.isfinite(costs[worst].epsilon),
        epsilon=finite(costs[worst].epsilon),
        epsilon_pld=finite(costs[worst].pld),
        epsilon_rdp=finite(costs[worst].rdp),
        epsilon_as_charged=finite(charged),
        epsilon_target=privacy.epsilon if run.config.is_private else None,
        delta=delta,
        units=units,
        delta_times_units=delta * units,
        delta_is_small=delta_is_small(delta, units),
        outside=exact_metrics(run.config),
        epsilon_record=finite(
            max(spent(events, delta, "replaced client").epsilon for events in counted)
        )
        if unit == "client"
        else None,
        unit=unit,
        relation=plan.relation,
        neighbours=_neighbours(unit, privacy.noise),
        several_records=group_costs(curve, delta) if unit == "record" else (),
        curve=curve,
        gdp_mu=gaussian_mu(curve),
        worst_tests=worst_tests(curve),
        by_client=tuple(
            _client_cost(ledger, count, cost)
            for ledger, count, cost in zip(ledgers, run.record_counts, costs, strict=True)
        ),
        by_round=costs_by_round(run, counted, delta, unit, trusted=trusted),
        note="The headline is computed without amplification by sampling, because the batch log "
        "does not show the sampling that the plan assumes."
        if moved
        else "",
        least_epsilon=least,
        below_least=least is not None and is_below(costs[worst].epsilon, least),
    )


def exact_metrics(config: Config) -> tuple[str, ...]:
    """What clients of a private run report about their own records without any noise."""
    told = {
        "the exact training loss of each client": config.privacy.release_metrics,
        "exact loss, metrics and record count of each client on its own records": (
            config.federation.client_evaluation
        ),
    }
    return tuple(what for what, is_told in told.items() if is_told and config.is_private)


def _dearer(
    run: AuditedRun, ledger: ClientLedger, delta: float, unit: Unit
) -> tuple[PrivacyEvent, ...]:
    """As charged or without amplification, whichever costs more: doubt never makes it cheaper."""
    ways = (ledger.events, without_amplification(run, ledger))
    return max(ways, key=lambda events: spent(events, delta, unit).epsilon)


def without_amplification(run: AuditedRun, ledger: ClientLedger) -> tuple[PrivacyEvent, ...]:
    """A client's charges with every sampled one counted as a use on all records."""
    own = run.own_events(ledger)
    others = [entry.event for entry in ledger.entries if entry.run != run.name]
    log = run.batches(ledger.client)
    charged = sum(event.count for event in own if event.sampling == "poisson")
    # A log with gaps could hide inclusions; then every batch counts.
    complete = log is not None and len(log.used) == charged and not log.out_of_place
    inclusions = sampling.most_inclusions(log.used) if complete and log is not None else charged
    return (*_unsampled(own, inclusions), *_unsampled(others, None))


def _unsampled(events: Sequence[PrivacyEvent], inclusions: int | None) -> list[PrivacyEvent]:
    """All of several sampled mechanisms are treated as the one with the least noise."""
    sampled = [event for event in events if event.sampling == "poisson"]
    kept = [event for event in events if event.sampling != "poisson"]
    if not sampled:
        return kept
    least = min(sampled, key=lambda event: event.noise_multiplier)
    count = sum(event.count for event in sampled) if inclusions is None else inclusions
    return [*kept, replace(least, sampling="full", sampling_rate=1.0, count=count)]


def finite(value: float) -> float | None:
    """None for what JSON has no number for."""
    return value if math.isfinite(value) else None


def _client_cost(ledger: ClientLedger, records: int, cost: Spent) -> ClientCost:
    return ClientCost(
        client=ledger.client,
        records=records,
        charges=len(ledger.entries),
        epsilon_pld=finite(cost.pld),
        epsilon_rdp=finite(cost.rdp),
        epsilon=finite(cost.epsilon),
        ledger_head=ledger.head,
    )


def _neighbours(unit: Unit, noise: str) -> str:
    if noise == "none":
        return "There is no guarantee, so no two data sets are promised to look alike."
    if unit == "record":
        return (
            "Two data sets are neighbours if one record of one is replaced by an empty record in "
            "the other: what is protected is everything that a single record says, and whether it "
            "was there at all. How many records a client has is public."
        )
    if noise == "local":
        return (
            "Two data sets are neighbours if all records of one client are replaced by any others: "
            "what is protected is everything that a client holds. That it takes part is known."
        )
    return (
        "Two data sets are neighbours if everything from one client is replaced by nothing: what "
        "is protected is everything that a client contributes. If instead one of its records, or "
        "all, are replaced by others, its update can move twice as far."
    )
