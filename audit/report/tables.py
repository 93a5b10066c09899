"""The rows of the report's tables, as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from calyx.audit.findings.measured.canaries import CanarySection
from calyx.audit.findings.measured.membership import MembershipSection
from calyx.audit.findings.measured.noise import Rounding
from calyx.audit.findings.measured.noise_law import NOISE_LEVEL, Remainder
from calyx.audit.findings.measured.party_views import ViewsSection
from calyx.audit.findings.measured.utility import UtilitySection
from calyx.audit.findings.promised.guarantee import GuaranteeSection
from calyx.audit.report.comparison import Comparison
from calyx.audit.report.schema import Report
from calyx.shared.metric_facts import MetricFacts
from calyx.shared.privacy.epsilon_text import delta_text, epsilon_text, lower_bound_text

Row = tuple[str, ...]
MOST_CLIENTS = 30


def worst_lines(found: GuaranteeSection) -> list[Row]:
    """The best attacker at some false positive rates."""
    return [
        (percent(test.false_positive_rate), percent(test.true_positive_rate, up=True))
        for test in found.worst_tests
    ]


def several_lines(found: GuaranteeSection) -> list[Row]:
    """Epsilon for people with several records."""
    costs = [(1, found.epsilon), *((c.records, c.epsilon) for c in found.several_records)]
    return [
        (str(records), epsilon_text(epsilon) if epsilon is not None else "no useful bound")
        for records, epsilon in costs
    ]


def client_caption(found: GuaranteeSection) -> str:
    """What the table of clients shows."""
    if len(found.by_client) <= MOST_CLIENTS:
        return "From each client's ledger"
    return f"From the {MOST_CLIENTS} costliest of {len(found.by_client):,} clients' ledgers"


def client_lines(found: GuaranteeSection) -> list[Row]:
    """What each client's ledger adds up to; with many clients, only the costliest."""
    shown = found.by_client
    if len(shown) > MOST_CLIENTS:
        costliest = sorted(shown, key=lambda c: math.inf if c.epsilon is None else c.epsilon)
        shown = tuple(reversed(costliest[-MOST_CLIENTS:]))
    return [
        (
            str(cost.client),
            f"{cost.records:,}",
            f"{cost.charges:,}",
            accountant(cost.epsilon_pld, cost.epsilon),
            accountant(cost.epsilon_rdp, cost.epsilon),
            epsilon_text(cost.epsilon),
            cost.ledger_head[:16],
        )
        for cost in shown
    ]


def agreement_lines(report: Report) -> list[Row]:
    """What is written down twice."""
    return [
        (c.what, c.ledgers, c.other, c.source, "yes" if c.agrees else "NO")
        for c in report.agreement.comparisons
    ]


def party_lines(report: Report) -> list[Row]:
    """Who sees what."""
    return [
        (
            party.name,
            party.sees,
            party.does_not_see,
            f"ε\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{epsilon_text(party.epsilon)}"
            if party.epsilon is not None
            else "none",
            party.trusted_for,
        )
        for party in report.parties.parties
    ]


def sampling_lines(report: Report) -> list[Row]:
    """The tests of sampling."""
    return [
        (
            test.name,
            f"{test.observed:,.0f}",
            f"{test.expected:,.0f}",
            f"{test.p_value:.2g}",
            "in line" if test.passed else "OUT OF LINE",
        )
        for test in report.sampling.tests
    ]


def run_lines(report: Report) -> list[Row]:
    """Runs in the ledgers."""
    return [
        (
            cost.run + (" (this one)" if cost.is_this_run else ""),
            str(cost.clients),
            str(cost.rounds),
            f"{cost.charges:,}",
            epsilon_text(cost.epsilon),
        )
        for cost in report.composition.runs
    ]


def access_lines(report: Report) -> list[Row]:
    """Accesses that are not counted."""
    return [(a.name, a.status, a.text) for a in report.uncounted.accesses]


def step_lines(report: Report) -> list[Row]:
    """Steps of the audit."""
    return [
        (
            step.name,
            "yes" if step.done else "no",
            "–" if step.seconds is None else f"{step.seconds:.1f}",
            step.reason,
        )
        for step in report.audit.steps
    ]


def accountant(epsilon: float | None, headline: float | None) -> str:
    """One accountant's figure; a dash where only the other one has a bound."""
    return "–" if epsilon is None and headline is not None else epsilon_text(epsilon)


def figures(values: Sequence[float]) -> str:
    """A few figures, or their range if there are many."""
    shown = [plain(value) for value in values]
    return ", ".join(shown) if len(shown) <= 4 else f"{shown[0]} to {shown[-1]}"


def percent(share: float | None, *, up: bool = False) -> str:
    """A share as per cent; `up` rounds it up where it is an allowed maximum."""
    if share is None:
        return "–"
    value = math.ceil(1000 * share - 1e-9) / 10 if up else 100 * share
    return f"{value:.1f} %"


def plain(value: Any) -> str:
    """A figure with about four digits; whole numbers in full."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def observer_lines(found: CanarySection) -> list[Row]:
    """Lower bounds by observer."""
    return [
        (
            observer.observer,
            observer.knows,
            observer.scoring,
            lower_bound_text(observer.steinke),
            lower_bound_text(observer.fdp),
            lower_bound_text(observer.clopper_pearson),
            lower_bound_text(observer.gaussian),
            f"{observer.auc:.3f}",
        )
        for observer in found.observers
    ]


def noise_lines(found: CanarySection) -> list[Row]:
    """Noise by observer."""
    return [
        (
            observer.observer,
            f"{observer.noise.expected:.3f}",
            f"{observer.noise.measured:.3f}",
            "TOO LITTLE" if observer.noise.too_little else "as planned",
        )
        for observer in found.observers
    ]


def attack_lines(report: Report) -> list[Row]:
    """What attacks found, for the first page."""
    sections = (("Who was in it?", report.membership), ("Reconstruction", report.views))
    return [(name, getattr(found, "answer", "")) for name, found in sections if found is not None]


def remainder_lines(found: Remainder) -> list[Row]:
    """The tests of what should be the planned noise and nothing else."""
    rows = (
        ("size", f"{found.energy_ratio:.4f}", "1", found.energy_p_value),
        (
            f"size in one place, the worst: {found.worst_part}",
            f"{found.part_ratio:.4f}",
            "1",
            found.part_p_value,
        ),
        ("excess kurtosis", f"{found.excess_kurtosis:.4f}", "0", found.kurtosis_p_value),
        ("histogram", "–", "–", found.histogram_p_value),
        (
            f"largest cosine of {found.pairs:,} pairs",
            f"{found.largest_cosine:.4f}",
            "0",
            found.cosine_p_value,
        ),
        ("largest echo within one", f"{found.largest_echo:.4f}", "0", found.echo_p_value),
    )
    return [_tested(*row) for row in rows]


def rounding_lines(found: Rounding) -> list[Row]:
    """The tests of rounding to the grid."""
    rows = (
        ("mean error, in grid steps", f"{found.mean_error:.4f}", "0", found.law_p_value),
        ("cosine of two calls", f"{found.largest_cosine:.4f}", "0", found.repeated_p_value),
        ("distance from the clamp", f"{found.clamped_error:.4f}", "0", found.clamp_p_value),
    )
    return [_tested(*row) for row in rows]


def _tested(name: str, measured: str, planned: str, p_value: float) -> Row:
    passed = p_value >= NOISE_LEVEL
    return (name, measured, planned, f"{p_value:.2g}", "in line" if passed else "OUT OF LINE")


def view_lines(found: ViewsSection) -> list[Row]:
    """What each party got."""
    return [
        (
            view.party,
            "; ".join(f"{k.messages} × {k.kind} {k.direction}" for k in view.captured),
            size(view.bytes),
            view.says,
        )
        for view in found.views
    ]


def compared_headings(comparison: Comparison) -> tuple[Row, Row]:
    """The headings of `compared_lines`, and those of them that stand over figures."""
    metric = comparison.metric
    figures = ("ε", "δ", "measured ε ≥", metric.shown if metric else "metric", "cost")
    return ("run", "noise", "encryption", "unit", *figures), figures


def compared_lines(comparison: Comparison) -> list[Row]:
    """Runs side by side."""
    return [
        (
            run.run,
            run.noise,
            run.encryption,
            run.unit,
            epsilon_text(run.epsilon),
            delta_text(run.delta),
            lower_bound_text(run.lower_bound),
            metric_text(run.value, run.metric)
            if comparison.metric
            else f"{run.metric.shown} {metric_text(run.value, run.metric)}",
            "–" if run.cost is None else run.metric.cost_text(run.cost),
        )
        for run in comparison.runs
    ]


def utility_lines(found: UtilitySection) -> list[Row]:
    """Metrics on the server's test records."""
    return [
        (
            one.metric.heading + (f" ({one.metric.direction})" if one.metric.direction else ""),
            metric_text(one.value, one.metric),
            metric_text(one.without_privacy, one.metric),
            "–" if one.cost is None else one.metric.cost_text(one.cost),
        )
        for one in found.metrics
    ]


def client_metric_lines(found: UtilitySection) -> list[Row]:
    """Metrics on the clients' own records."""
    return [
        (
            one.metric.heading + (f" ({one.metric.direction})" if one.metric.direction else ""),
            metric_text(one.mean, one.metric),
            metric_text(one.worst, one.metric),
        )
        for one in found.clients
    ]


def metric_text(value: float | None, metric: MetricFacts) -> str:
    """A value of a metric."""
    return "–" if value is None else metric.text(value)


def membership_lines(found: MembershipSection) -> list[Row]:
    """One line an attack."""
    lines: list[Row] = []
    for attack in found.attacks:
        shown = {
            rate.wanted_false_positive_rate: f"{percent(rate.true_positive_rate)} "
            f"({percent(rate.low)} to {percent(rate.high)})"
            for rate in attack.rates
        }
        lines.append(
            (
                attack.attack,
                f"{attack.auc:.3f}",
                f"{attack.auc_low:.3f} to {attack.auc_high:.3f}",
                shown.get(0.01, "too few records"),
                shown.get(0.001, "too few records"),
                f"{attack.worst_records.auc:.2f} "
                f"({attack.worst_records.low:.2f} to {attack.worst_records.high:.2f})",
            )
        )
    return lines


def size(size_bytes: float) -> str:
    """Decimal units."""
    units = ["B", "kB", "MB", "GB"]
    while size_bytes >= 999.5 and len(units) > 1:
        size_bytes /= 1000
        units.pop(0)
    return (
        f"{size_bytes:.0f}\N{NO-BREAK SPACE}{units[0]}"
        if units[0] == "B"
        else f"{size_bytes:.1f}\N{NO-BREAK SPACE}{units[0]}"
    )
