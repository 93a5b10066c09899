"""Do ledgers, configuration and journal tell the same story?

The ledgers are what counts. What the server wrote into its journal and what the configuration asks
for are compared with them, and a difference is shown before anything else in the report.
"""

from __future__ import annotations

import math
from collections import Counter

from pydantic import Field

from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.finished_run import AuditedRun
from calyx.audit.section import Section
from calyx.shared.config.load import digest
from calyx.shared.errors import CalyxError
from calyx.shared.privacy.accounting import spent
from calyx.shared.privacy.epsilon_text import epsilon_text

_RELATIVE = 1e-6


class Comparison(Section):
    """One thing that is written down in two places."""

    what: str
    ledgers: str = Field(description="as the ledgers have it, or what is computed from them")
    other: str
    source: str = Field(description="where the other value stands")
    agrees: bool


class AgreementSection(Section):
    """All comparisons."""

    agrees: bool
    same_code: bool = Field(
        description="whether the run says that it was made by the code that the audit ran with"
    )
    comparisons: tuple[Comparison, ...]


def find(run: AuditedRun, store: EvidenceStore) -> AgreementSection:
    """Compare ledgers, configuration and journal."""
    found = [
        *_epsilons(run),
        _charges(run),
        _noise(run),
        _planned(run),
        _derived(run),
        _records(run),
        _effect(run),
        Comparison(
            what="configuration",
            ledgers=digest(run.config)[:16],
            other=str(run.environment.get("config_digest"))[:16],
            source="environment.json, written at the start",
            agrees=digest(run.config) == run.environment.get("config_digest"),
        ),
    ]
    return AgreementSection(
        agrees=all(c.agrees for c in found),
        same_code=run.environment.get("code_hash") == store.binds.get("code"),
        comparisons=tuple(found),
    )


def _epsilons(run: AuditedRun) -> list[Comparison]:
    delta, unit = run.config.privacy.delta, run.config.privacy.unit
    total = max(spent(ledger.events, delta, unit).epsilon for ledger in run.ledgers)
    own = max(spent(run.own_events(ledger), delta, unit).epsilon for ledger in run.ledgers)
    target = run.config.privacy.epsilon if run.config.is_private else math.inf
    told = _epsilon(run.end.get("epsilon_max"))
    by_server = _epsilon(run.rounds[-1].get("epsilon_max"))
    return [
        Comparison(
            what="epsilon of all charges",
            ledgers=_shown(total),
            other=_shown(told),
            source="the journal's last line",
            agrees=_same(total, told),
        ),
        Comparison(
            what="epsilon of this run",
            ledgers=_shown(own),
            other=_shown(by_server),
            source="the server's own count, which may be larger",
            agrees=own <= by_server * (1 + _RELATIVE),
        ),
        Comparison(
            what="epsilon of this run",
            ledgers=_shown(own),
            other=_shown(target),
            source="what the configuration promises",
            agrees=own <= target * (1 + _RELATIVE),
        ),
    ]


def _charges(run: AuditedRun) -> Comparison:
    """Every reply that was used must have been charged first."""
    charged = Counter(
        number
        for ledger in run.ledgers
        for number in {entry.round for entry in ledger.entries if entry.run == run.name}
    )
    used = {int(event["round"]): _count(event["ok"]) for event in run.rounds}
    short = [number for number, replies in used.items() if charged[number] < replies]
    return Comparison(
        what="charges, and replies that were used",
        ledgers=f"{sum(charged.values())} charges in {len(charged)} rounds",
        other=f"{sum(used.values())} replies in {len(used)} rounds"
        + (f"; more replies than charges in round {short[0]}" if short else ""),
        source="the journal's rounds",
        agrees=not short and set(charged) <= set(used),
    )


def _noise(run: AuditedRun) -> Comparison:
    events = {event for ledger in run.ledgers for event in run.own_events(ledger)}
    factor = run.plans[0].sensitivity_factor
    most = max((event.noise_multiplier * factor for event in events), default=0.0)
    told = float(run.start["noise_multiplier"])
    return Comparison(
        what="largest noise multiplier",
        ledgers=f"{most:.4f}",
        other=f"{told:.4f}",
        source="the journal's first line",
        agrees=math.isclose(most, told, rel_tol=_RELATIVE),
    )


def _planned(run: AuditedRun) -> Comparison:
    """Unit, sampling and steps of each charge against what the configuration leads to.

    Also what a client-level charge says of one record: with a factor of 1 where it is 2, the ledger
    of a record's owner would count half. A charge that does not say counts as 2 (older ledgers).
    """
    private, strange, shown = run.config.is_private, [], ""
    for ledger, plan in zip(run.ledgers, run.plans, strict=True):
        by_record = plan.unit == "record"
        sampling, rate, count = (
            (plan.sampling, plan.sampling_rate, plan.steps_per_round)
            if private and by_record
            else ("full", 1.0, 1)
        )
        wanted = (plan.unit, sampling, rate, count, private)
        shown = shown or f"{plan.unit}, {sampling}, {rate:.4g}, {count} a round"
        for event in run.own_events(ledger):
            if event.replacement_factor not in (_factor_for_a_record(run), None):
                strange.append(
                    f"client {ledger.client}: {event.replacement_factor} sensitivities for a record"
                )
            got = (event.unit, event.sampling, event.sampling_rate, event.count)
            if (*got, event.mechanism != "none") != wanted:
                strange.append(
                    f"client {ledger.client}: {got[0]}, {got[1]}, {got[2]:.4g}, {got[3]}"
                )
    return Comparison(
        what="unit, sampling, rate and steps",
        ledgers=strange[0] if strange else "as configured, for every charge",
        other=shown,
        source="the configuration (first client)",
        agrees=not strange,
    )


def _derived(run: AuditedRun) -> Comparison:
    """Each charge, noise and grid included, against a new plan made from the configuration."""
    wanted, other = [], ""
    try:
        wanted = [plan.round_event for plan in run.planned_anew]
    except CalyxError as error:
        other = f"no plan can be made: {error.full_text}"
    strange = ""
    for ledger, event in zip(run.ledgers, wanted, strict=False):
        others = {own for own in run.own_events(ledger) if own != event}
        if others and not strange:
            told = max(own.noise_multiplier for own in others)
            strange = f"client {ledger.client}: noise {told:.4f}, or another grid"
    multipliers = sorted({event.noise_multiplier for event in wanted})
    shown = ", ".join(f"{value:.4f}" for value in multipliers[:3])
    return Comparison(
        what="charges, planned again",
        ledgers=strange or "every charge is the one that follows from the configuration",
        other=other or f"noise {shown}" + (", ..." if len(multipliers) > 3 else ""),
        source="the configuration, planned again by this code",
        agrees=not strange and not other,
    )


def _factor_for_a_record(run: AuditedRun) -> int | None:
    """From the configuration alone: what the plan says of itself may be wrong."""
    privacy = run.config.privacy
    if not privacy.is_client_level:
        return None
    return 1 if privacy.noise == "local" else 2


def _records(run: AuditedRun) -> Comparison:
    held, told = sum(run.record_counts), int(run.start["train_records"])
    declared = run.config.tells_record_counts
    return Comparison(
        what="training records",
        ledgers=f"{held:,} in the partition",
        other=f"{told:,}",
        source="the journal's first line",
        agrees=held == told or not declared,
    )


def _effect(run: AuditedRun) -> Comparison:
    """What was paid for must have had an effect, or the run only looks like one."""
    charges = sum(len(run.own_events(ledger)) for ledger in run.ledgers)
    return Comparison(
        what="rounds that had an effect",
        ledgers=f"{charges} charges",
        other=f"{run.rounds_with_effect} of {len(run.rounds)}",
        source="the journal's rounds",
        agrees=run.rounds_with_effect > 0,
    )


def _count(value: object) -> int:
    return len(value) if isinstance(value, list) else int(str(value))


def _epsilon(value: object) -> float:
    return math.inf if value is None else float(str(value))


def _same(one: float, other: float) -> bool:
    return one == other or math.isclose(one, other, rel_tol=_RELATIVE)


def _shown(epsilon: float) -> str:
    return epsilon_text(epsilon, decimals=4)
