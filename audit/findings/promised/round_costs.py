"""Epsilon over the rounds of a run, for clients with the same charges."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from calyx.audit.finished_run import AuditedRun
from calyx.audit.section import Section
from calyx.client.ledger.ledger import Entry
from calyx.shared.privacy.accounting import spent
from calyx.shared.privacy.event import PrivacyEvent, Unit

# Points of epsilon over rounds, over all distinct clients: each is a composition of its own.
_POINTS, _POINTS_IN_ALL = 16, 48


class RoundCosts(Section):
    """Epsilon over the rounds of this run, for clients with the same charges."""

    clients: tuple[int, ...]
    rounds: tuple[int, ...]
    epsilons: tuple[float, ...]


def costs_by_round(
    run: AuditedRun,
    counted: Sequence[Sequence[PrivacyEvent]],
    delta: float,
    unit: Unit,
    *,
    trusted: bool,
) -> tuple[RoundCosts, ...]:
    """Clients with equal charges share a line; its last point is the client's cost.

    Points before it are as charged, so they are left out where charges are not what counts.
    """
    groups: dict[tuple[tuple[int, PrivacyEvent], ...], list[int]] = {}
    for ledger in run.ledgers:
        key = tuple((e.round if e.run == run.name else 0, e.event) for e in ledger.entries)
        groups.setdefault(key, []).append(ledger.client)
    each = max(2, min(_POINTS, _POINTS_IN_ALL // max(1, len(groups))))
    lines = []
    for clients in groups.values():
        entries = run.ledgers[clients[0]].entries
        rounds = sorted({e.round for e in entries if e.run == run.name})
        if not rounds:
            continue
        places = np.unique(np.linspace(0, len(rounds) - 1, each if trusted else 1).round())
        shown = [rounds[int(place)] for place in places] if trusted else [rounds[-1]]
        costs = [
            spent(counted[clients[0]], delta, unit).epsilon
            if number == rounds[-1]
            # A coarser grid errs towards more; for points of a line that is near enough.
            else _cheaply(_until(entries, run.name, number), delta, unit)
            for number in shown
        ]
        if all(math.isfinite(cost) for cost in costs):
            lines.append(
                RoundCosts(clients=tuple(clients), rounds=tuple(shown), epsilons=tuple(costs))
            )
    return tuple(lines)


def _cheaply(events: Sequence[PrivacyEvent], delta: float, unit: Unit) -> float:
    coarse = spent(events, delta, unit, coarse=True).epsilon
    return coarse if math.isfinite(coarse) else spent(events, delta, unit).epsilon


def _until(entries: Sequence[Entry], run: str, number: int) -> list[PrivacyEvent]:
    """What was charged up to a round of this run; other runs on the data came before or count."""
    return [e.event for e in entries if e.run != run or e.round <= number]
