"""How a run ended, and how a notebook shows it: a small table with the course of its metric.

The page is the notebook's: no colours of our own, so that it reads in light and dark themes, and
nothing is loaded from elsewhere. Every text is escaped.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from calyx.server.state.journal import Event, RunEvents
from calyx.server.state.outcome import on_clients
from calyx.shared.errors import RunError
from calyx.shared.metric_facts import ACCURACY, MetricFacts
from calyx.shared.privacy.epsilon_text import delta_text, epsilon_text, whom_text

_WHO_ADDS_NOISE = {
    "local": "each client, to what it sends",
    "distributed": "the clients, each a share of what a sealed sum needs",
    "central": "the server, which sees updates without it",
}
_WIDTH, _HEIGHT, _MARGIN = 120, 20, 2
_TABLE = "border-collapse:collapse;border:0;color:inherit"
# Notebooks put text in tables to the right, and stripes behind the rows.
_LEFT = "text-align:left;vertical-align:top;padding:2px 12px 2px 0;background:none;border:0"


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        accuracy: share of right predictions on the server's test set; None where the task has no
            accuracy.
        metrics: all metrics of the task on the same, by name, the headline first; None where the
            test set does not define one.
        loss: mean loss on the same, in the unit of the task's loss (cross-entropy: nats).
        epsilon_max: most that any client's ledger says was spent; None without privacy.
        delta: at which `epsilon_max` holds.
        noise_multiplier: largest among the clients' plans; 0 without privacy.
        rounds: completed rounds.
        clients: clients in the run.
        rejected: replies rejected over all rounds.
        rounds_with_effect: of the rounds, those that changed the model; 0: nothing was learned.
        seconds: wall time of this call.
        seconds_per_round: mean over all rounds, training to checkpoint.
        run_dir: the run folder.
    """

    accuracy: float | None
    metrics: dict[str, float | None]
    loss: float
    epsilon_max: float | None
    delta: float
    noise_multiplier: float
    rounds: int
    clients: int
    rejected: int
    rounds_with_effect: int
    seconds: float
    seconds_per_round: float
    run_dir: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return _html(self)


def _html(result: RunResult) -> str:
    """The table. Units and course come from the journal, and are left out if it is gone."""
    told, by_clients = _journal(Path(result.run_dir))
    start = told.start
    headline, *others = _judged_by(result, told)
    value = f"<b>{_value(headline, result.metrics.get(headline.name))}</b>"
    if headline.direction:
        value += f" ({headline.direction})"
    rows = {
        f"test {escape(headline.shown)}": f"{value} {_sparkline(headline, told)}",
        "test loss": _number(result.loss),
    }
    if others:
        rows["other metrics"] = ", ".join(
            escape(metric.named_text(result.metrics.get(metric.name))) for metric in others
        )
    if by_clients:
        rows["on clients' records"] = escape(by_clients)
    rows["privacy"] = _privacy(result, start)
    if by_record := start.get("epsilon_record"):
        rows["for one record"] = f"ε ≤ {epsilon_text(by_record)} over all rounds"
    if noise := _WHO_ADDS_NOISE.get(str(start.get("noise"))):
        rows["noise added by"] = noise
    if result.epsilon_max is not None:
        rows["noise multiplier"] = _number(result.noise_multiplier)
    each, whole = f"{result.seconds_per_round:.1f} s", f"{result.seconds:.1f} s"
    rows["rounds"] = f"{result.rounds} ({each} each, {whole} in all)"
    if result.rounds_with_effect == 0:
        rows["rounds"] += "; <b>nothing was learned: no round had an effect</b>"
    elif result.rounds_with_effect < result.rounds:
        rows["rounds"] += f"; {result.rounds_with_effect} changed the model"
    rows["clients"] = f"{result.clients}"
    rows["rejected replies"] = f"{result.rejected}"
    rows["run folder"] = f"<code>{escape(result.run_dir)}</code>"
    lines = "".join(
        f'<tr style="background:none"><th style="{_LEFT};font-weight:normal;opacity:0.7">{name}'
        f'</th><td style="{_LEFT}">{value}</td></tr>'
        for name, value in rows.items()
    )
    return f'<table style="{_TABLE}"><tbody>{lines}</tbody></table>'


def _privacy(result: RunResult, start: Event) -> str:
    if result.epsilon_max is None:
        return "<b>no differential privacy</b> (ε = ∞)"
    whom = ""
    if start:
        whom = f" for each {whom_text(str(start.get('unit')), str(start.get('noise')))}"
    spent = f"<b>ε = {epsilon_text(result.epsilon_max)}</b>"
    return f"{spent} at δ = {delta_text(result.delta)}{escape(whom)}"


def _journal(run_dir: Path) -> tuple[RunEvents, str]:
    """What a run told, and its clients in the end; nothing of a folder that is moved or damaged."""
    try:
        told = RunEvents.read(run_dir)
        told.headlines()
        return told, on_clients(told.headline, told.rounds[-1]) if told.rounds else ""
    except RunError:
        return RunEvents(()), ""


def _judged_by(result: RunResult, told: RunEvents) -> tuple[MetricFacts, ...]:
    """How the metrics of a result are read; without the journal only their names are left."""
    known = {metric.name: metric for metric in (ACCURACY, *told.judged_by)}
    return tuple(
        known.get(name, MetricFacts(name, name.replace("_", " "))) for name in result.metrics
    )


def _sparkline(metric: MetricFacts, told: RunEvents) -> str:
    """A metric by round, from the lowest to the highest, as a line."""
    course = [value for value in told.headlines() if value is not None]
    if len(course) < 2:
        return ""
    low, high = min(course), max(course)
    points = " ".join(
        f"{_MARGIN + (_WIDTH - 2 * _MARGIN) * i / (len(course) - 1):.1f},"
        f"{_HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * _share(value, low, high):.1f}"
        for i, value in enumerate(course)
    )
    words = f"from {metric.text(course[0])} to {metric.text(course[-1])}"
    said = f"{escape(metric.shown)} by round, {words}"
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{said}" style="display:inline;vertical-align:middle;margin-left:8px">'
        f'<title>{said}</title><polyline points="{points}" fill="none" stroke="currentColor" '
        'stroke-width="1.5" stroke-linejoin="round"/></svg>'
    )


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _value(metric: MetricFacts, value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else metric.text(value)


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"
