"""Was each record drawn as the accounting assumes? Assumed sampling against the batch log.

Amplification by sampling is right only if every record enters every batch by an independent coin
with the plan's rate. Four sums over all clients, steps and records then have a known mean and
variance, and each reveals a different departure:

==================  =============================================================================
`rate`              all inclusions; another rate than the plan's
`batch sizes`       dispersion of batch sizes around their mean; fixed or shuffled batches have
                    none
`record counts`     dispersion of each record's inclusions; shuffled passes spread them too evenly,
                    a favoured or left-out record too unevenly
`neighbours`        records in two successive batches; shuffled passes avoid them, a batch used
                    twice has too many
==================  =============================================================================

Sums of dispersion are compared with a gamma distribution of the same mean and variance, the others
with a normal one, both two-sided, each at a quarter of `FALSE_ALARM_RATE`. If any is out of line,
or the log does not hold the rounds that the ledgers were charged for, no amplified figure may be
printed: the guarantee is computed again without amplification, from the largest number of batches
that any record was in. Each of them is then a use of the Gaussian mechanism on all records. That
is right for batches that were formed without looking at the records' content.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import gamma, norm

from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.finished_run import AuditedRun
from calyx.audit.section import Section
from calyx.shared.privacy.event import PrivacyEvent

FALSE_ALARM_RATE = 1e-3

Batches = NDArray[np.bool_]
Verdict = Literal["as assumed", "not as assumed", "not measured", "not needed"]


class SamplingTest(Section):
    """One sum, compared with what independent coins would give."""

    name: str
    observed: float
    expected: float
    p_value: float = Field(ge=0, le=1)
    passed: bool


class SamplingSection(Section):
    """Sampling assumed against sampling measured."""

    assumed: str = Field(description="in words")
    rates: tuple[float, ...] = Field(description="assumed rate of each client, without repeats")
    verdict: Verdict
    answer: str
    batches: int = Field(description="batches that were looked at")
    mean_batch_size: float | None
    largest_batch: int | None
    smallest_batch: int | None
    most_inclusions: int | None = Field(description="batches that the most-used record was in")
    false_alarm_rate: float = Field(description="chance that right sampling fails these tests")
    tests: tuple[SamplingTest, ...]
    sizes: tuple[tuple[int, int], ...] = Field(description="batch size and how often it occurred")
    out_of_place: int = Field(
        description="rows that the model was given and that were no record of the client, or one "
        "that was in the batch already"
    )


@dataclass(frozen=True)
class _Sum:
    name: str
    observed: float
    mean: float
    variance: float
    skewed: bool


def find(run: AuditedRun, _: EvidenceStore) -> SamplingSection:
    """Test the batch logs of all clients; see the module's text."""
    events = [event for ledger in run.ledgers for event in ledger.events]
    rates = tuple(sorted({e.sampling_rate for e in events if e.sampling == "poisson"}))
    needs_log = run.config.privacy.is_record_level
    kept = [run.batches(client) for client in range(len(run.ledgers))]
    logs = [None if log is None else log.used for log in kept]
    measured = [log for log in logs if log is not None]
    out_of_place = sum(log.out_of_place for log in kept if log is not None)
    sizes = tuple(int(size) for log in measured for size in log.sum(axis=1))
    facts = {
        "rates": rates,
        "batches": len(sizes),
        "mean_batch_size": float(np.mean(sizes)) if sizes else None,
        "largest_batch": max(sizes, default=None),
        "smallest_batch": min(sizes, default=None),
        "most_inclusions": max((most_inclusions(log) for log in measured), default=None),
        "sizes": tuple(sorted(Counter(sizes).items())),
        "out_of_place": out_of_place,
    }

    def section(
        assumed: str, verdict: Verdict, answer: str, tests: Sequence[SamplingTest] = ()
    ) -> SamplingSection:
        return SamplingSection.model_validate(
            facts
            | {
                "assumed": assumed,
                "verdict": verdict,
                "answer": answer,
                "false_alarm_rate": FALSE_ALARM_RATE if tests else 0.0,
                "tests": tuple(tests),
            }
        )

    if not needs_log:
        reason = (
            "no amplification by sampling is claimed, so nothing rests on how batches were made"
        )
        return section("none", "not needed", f"In this run {reason}.")
    assumed = _assumed(rates, events)
    if missing := _missing(run, logs):
        verdict: Verdict = "not as assumed" if measured else "not measured"
        return section(assumed, verdict, missing)
    if out_of_place:
        return section(
            assumed,
            "not as assumed",
            f"The models were given {out_of_place:,} rows that were no record of their client, or "
            "one that was in the same batch already; what one record moves is not bounded then.",
        )
    if not rates:
        whole = all(log.all() for log in measured)
        return section(
            assumed,
            "as assumed" if whole else "not as assumed",
            f"All {len(sizes):,} batches in the log hold every record of their client. The "
            "guarantee claims no amplification, so it does not even rest on this."
            if whole
            else "Some batches did not hold every record, though the plan says so.",
        )
    drawn = [
        (log, plan.sampling_rate)
        for log, plan in zip(measured, run.plans, strict=True)
        if plan.sampling == "poisson"
    ]
    tests = sampling_tests([log for log, _ in drawn], [rate for _, rate in drawn])
    failed = [test.name for test in tests if not test.passed]
    if failed:
        return section(
            assumed,
            "not as assumed",
            f"The batches were not drawn by independent coins: {', '.join(failed)} out of line. "
            "The amplified figure is not valid and is not printed.",
            tests,
        )
    return section(
        assumed,
        "as assumed",
        f"{len(sizes):,} batches are in line with independent coins of the planned rate.",
        tests,
    )


def most_inclusions(log: Batches) -> int:
    """Batches that the most-used record of this client was in."""
    return int(log.sum(axis=0).max(initial=0))


def sampling_tests(logs: Sequence[Batches], rates: Sequence[float]) -> tuple[SamplingTest, ...]:
    """Compare batch logs with independent coins.

    Args:
        logs: of each client, bool (batches, records).
        rates: of each client, the assumed probability, below 1.

    Returns:
        one test for each sum of the module's text.
    """
    by_name: dict[str, list[_Sum]] = {}
    for log, rate in zip(logs, rates, strict=True):
        for found in _sums(log, rate):
            by_name.setdefault(found.name, []).append(found)
    level = FALSE_ALARM_RATE / len(by_name)
    tests = []
    for name, parts in by_name.items():
        observed = sum(part.observed for part in parts)
        mean = sum(part.mean for part in parts)
        p = _p_value(observed, mean, sum(part.variance for part in parts), skewed=parts[0].skewed)
        tests.append(
            SamplingTest(name=name, observed=observed, expected=mean, p_value=p, passed=p >= level)
        )
    return tuple(tests)


def _sums(log: Batches, q: float) -> list[_Sum]:
    steps, records = log.shape
    single = q * (1 - q)
    total = float(log.sum())
    overlap = float((log[1:] & log[:-1]).sum())
    # B_t B_{t+1}: variance q^2 (1 - q^2) each, and covariance q^3 (1 - q) of those that share B.
    pairs, shared = records * max(0, steps - 1), records * max(0, steps - 2)
    return [
        _Sum("rate", total, steps * records * q, steps * records * single, skewed=False),
        _dispersion("batch sizes", log.sum(axis=1), records, q),
        _dispersion("record counts", log.sum(axis=0), steps, q),
        _Sum(
            "neighbours",
            overlap,
            pairs * q**2,
            pairs * q**2 * (1 - q**2) + 2 * shared * q**3 * (1 - q),
            skewed=False,
        ),
    ]


def _dispersion(name: str, counts: NDArray[np.int64], trials: int, q: float) -> _Sum:
    """Sum of squared standardised counts, each binomial (trials, q)."""
    variance = trials * q * (1 - q)
    observed = float(((counts - trials * q) ** 2 / variance).sum())
    # A binomial's standardised fourth moment is 3 + (1 - 6 q (1 - q)) / variance.
    each = 2 + (1 - 6 * q * (1 - q)) / variance
    return _Sum(name, observed, float(len(counts)), len(counts) * each, skewed=True)


def _p_value(observed: float, mean: float, variance: float, *, skewed: bool) -> float:
    """Two-sided; 1 where nothing can vary."""
    if variance <= 0:
        return 1.0
    if skewed:
        null = gamma(mean**2 / variance, scale=variance / mean)
        tail = min(null.cdf(observed), null.sf(observed))
    else:
        tail = norm.sf(abs(observed - mean) / math.sqrt(variance))
    return float(min(1.0, 2 * tail))


def _assumed(rates: Sequence[float], events: Sequence[PrivacyEvent]) -> str:
    if not rates:
        return "every record in every batch" if events else "nothing was charged"
    shown = f"{rates[0]:.4g}" if len(rates) == 1 else f"between {rates[0]:.4g} and {rates[-1]:.4g}"
    return f"an independent coin for each record and batch, with probability {shown}"


def _missing(run: AuditedRun, logs: Sequence[Batches | None]) -> str:
    """What is missing from the logs; empty if they hold all that this run was charged for."""
    for ledger, log, plan, records in zip(
        run.ledgers, logs, run.plans, run.record_counts, strict=True
    ):
        rounds = {entry.round for entry in ledger.entries if entry.run == run.name}
        wanted = len(rounds) * plan.steps_per_round
        if log is None and wanted:
            return f"Client {ledger.client} kept no batch log, so its sampling was not measured."
        if log is not None and (len(log) != wanted or log.shape[1] != records):
            return (
                f"The batch log of client {ledger.client} holds {len(log)} batches of "
                f"{log.shape[1]} records; the ledger was charged for {wanted} of {records}."
            )
    return ""
