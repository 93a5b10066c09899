"""Several runs side by side, as data."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from calyx.audit.report.headline import largest_proven
from calyx.audit.report.schema import Report
from calyx.audit.section import Section
from calyx.shared.metric_facts import MetricFacts
from calyx.shared.privacy.epsilon_text import delta_text


class ComparedRun(Section):
    """One run."""

    run: str
    preset: str
    data: str
    clients: int
    rounds: int
    noise: str
    encryption: str
    unit: str
    epsilon: float | None = Field(description="the headline; None is infinite")
    delta: float
    lower_bound: float | None = Field(description="largest bound that was measured")
    metric: MetricFacts = Field(description="the headline of the run's task")
    value: float | None = Field(description="of that metric, on the server's test records")
    cost: float | None = Field(description="what privacy cost, in the metric's own unit")
    accuracy: float | None = Field(description="None: the task has none")
    cost_in_points: float | None = Field(description="of accuracy")
    status: str


class Comparison(Section):
    """All of them, those with the smallest epsilon first."""

    runs: tuple[ComparedRun, ...]
    notes: tuple[str, ...] = Field(description="why they cannot simply be compared")

    @property
    def metric(self) -> MetricFacts | None:
        """The headline of all runs; None if they are judged by several."""
        metrics = {run.metric for run in self.runs}
        return metrics.pop() if len(metrics) == 1 else None


def compared(reports: Sequence[Report]) -> Comparison:
    """Put reports side by side."""
    runs = sorted(
        (_run(report) for report in reports),
        key=lambda run: (run.epsilon is None, run.epsilon or 0.0, run.run),
    )
    notes = []
    private = [run for run in runs if run.epsilon is not None]
    for what, values in (
        ("units", {run.unit for run in private}),
        ("deltas", {delta_text(run.delta) for run in private}),
        ("data sets", {run.data for run in runs}),
        ("metrics", {run.metric.shown for run in runs}),
    ):
        if len(values) > 1:
            notes.append(
                f"The {what} differ ({', '.join(sorted(values))}): the epsilons or metrics do "
                "not mean the same."
            )
    return Comparison(runs=tuple(runs), notes=tuple(notes))


def _run(report: Report) -> ComparedRun:
    measured = largest_proven(report.lower_bounds)
    encryption = report.mechanism.encryption
    return ComparedRun(
        run=report.run.name,
        preset=report.run.preset,
        data=report.run.data,
        clients=report.run.clients,
        rounds=report.run.rounds,
        noise=report.mechanism.noise_kind,
        encryption=encryption.scheme if encryption else "none",
        unit=report.guarantee.unit,
        epsilon=report.guarantee.epsilon,
        delta=report.guarantee.delta,
        lower_bound=measured.epsilon if measured else None,
        metric=report.utility.headline.metric,
        value=report.utility.headline.value,
        cost=report.utility.headline.cost,
        accuracy=report.utility.accuracy,
        cost_in_points=report.utility.cost_in_points,
        status=report.headline.status,
    )
