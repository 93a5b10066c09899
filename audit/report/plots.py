"""The report's figures: data in, SVG out, the same bytes each time.

Letters are drawn as paths, so a figure looks the same wherever it is opened, and no font is loaded.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from audit.findings.canaries import Observer
from audit.findings.guarantee import CurvePoint, GuaranteeSection, worst_power
from audit.findings.inversion import InversionSection
from audit.findings.sampling import SamplingSection
from audit.findings.utility import UtilitySection
from audit.report.comparison import Comparison
from audit.report.headline import epsilon_text
from audit.report.section import LowerBound

INK, MUTED, GREEN, LEAF, RED, RULE = (
    "#1b1b1b",
    "#5d635e",
    "#2f6b45",
    "#8fb59a",
    "#9b2c1f",
    "#d9ddd8",
)
_SERIES = (GREEN, "#7a5c12", "#40558f", "#8a3f6b")
_STYLE: Any = {
    "svg.fonttype": "path",
    "svg.hashsalt": "calyx",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
_MAX_LINES = 12


@dataclass(frozen=True)
class Plot:
    """A figure for the page.

    Attributes:
        svg: the drawing, without XML declaration.
        alt: what it shows, for those who do not see it.
        caption: below the figure.
    """

    svg: str
    alt: str
    caption: str


def epsilon_over_rounds(found: GuaranteeSection) -> Plot | None:
    """Epsilon over rounds, a line for each group of clients with equal charges; the budget."""
    lines = [line for line in found.by_round if len(line.rounds) > 1]
    if not lines:
        return None
    with _figure(4.3, 2.7) as (axes, drawn):
        for number, line in enumerate(lines[:_MAX_LINES]):
            whole = len(lines) == 1
            axes.plot(
                line.rounds,
                line.epsilons,
                color=GREEN if whole else _SERIES[number % len(_SERIES)],
                alpha=1.0 if whole else 0.75,
                linewidth=1.8 if whole else 1.1,
            )
        last = max(line.rounds[-1] for line in lines)
        if found.epsilon_target is not None:
            axes.axhline(found.epsilon_target, color=RED, linewidth=1.0, linestyle=(0, (5, 3)))
            axes.annotate(
                f"budget {found.epsilon_target:g}",
                (0, found.epsilon_target),
                xytext=(2, 3),
                textcoords="offset points",
                color=RED,
                fontsize=8,
            )
        top = max(found.epsilon_target or 0.0, *(max(line.epsilons) for line in lines))
        axes.set(xlabel="round", ylabel="ε spent so far", ylim=(0, 1.15 * top), xlim=(0, last))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
    one = lines[0]
    several = "" if len(lines) == 1 else f", for {len(lines)} groups of clients"
    return Plot(
        drawn.svg,
        f"Line chart: epsilon grows from {one.epsilons[0]:.2f} after round {one.rounds[0]} to "
        f"{max(line.epsilons[-1] for line in lines):.2f} after round {last}{several}"
        + (f"; the budget is {found.epsilon_target:g}." if found.epsilon_target else "."),
        "ε by round"
        + (
            f", the same for all {len(one.clients)} clients."
            if len(lines) == 1
            else f", one line for each group of clients with equal charges ({len(lines)} groups)."
        ),
    )


def epsilon_delta(found: GuaranteeSection) -> Plot | None:
    """The whole curve of pairs that hold at once."""
    points = [p for p in found.curve if p.epsilon > 0]
    if not points or found.epsilon is None:
        return None
    with _figure(4.3, 2.7) as (axes, drawn):
        axes.plot([p.delta for p in points], [p.epsilon for p in points], color=GREEN, lw=1.8)
        axes.plot([found.delta], [found.epsilon], "o", color=INK, markersize=5)
        axes.annotate(
            f"({epsilon_text(found.epsilon)}, {found.delta:g})",
            (found.delta, found.epsilon),
            xytext=(7, 5),
            textcoords="offset points",
        )
        axes.axvline(1 / found.units, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.annotate(
            f"1/n, n = {found.units:,}",
            (1 / found.units, 0),
            xytext=(3, 4),
            textcoords="offset points",
            color=MUTED,
            fontsize=7.5,
        )
        axes.set(xscale="log", xlabel="δ", ylabel="ε", ylim=(0, None))
        axes.grid(axis="y")
    return Plot(
        drawn.svg,
        f"Line chart: epsilon against delta, from {points[0].epsilon:.2f} at delta "
        f"{points[0].delta:.0e} down to {points[-1].epsilon:.2f} at delta {points[-1].delta:.1g}; "
        f"the headline is epsilon {epsilon_text(found.epsilon)} at delta {found.delta:g}.",
        "Every pair (ε, δ) on the line holds, all at once.",
    )


def bounds_against_guarantee(bounds: Sequence[LowerBound], found: GuaranteeSection) -> Plot | None:
    """Each lower bound as a dot, its ceiling as a tick, the guarantee as a line."""
    if not bounds:
        return None
    rows = list(reversed(bounds))
    with _figure(4.3, 0.7 + 0.22 * len(rows)) as (axes, drawn):
        for place, bound in enumerate(rows):
            color = GREEN if bound.kind == "bound" else MUTED
            axes.plot([0, bound.epsilon], [place, place], color=color, linewidth=1.0, alpha=0.5)
            filled = color if bound.kind == "bound" else "white"
            axes.plot(bound.epsilon, place, "o", color=color, markerfacecolor=filled, markersize=5)
            if bound.ceiling is not None:
                axes.plot(bound.ceiling, place, "|", color=MUTED, markersize=9)
        if found.epsilon is not None:
            axes.axvline(found.epsilon, color=RED, linewidth=1.2)
            axes.annotate(
                f"guaranteed {epsilon_text(found.epsilon)}",
                (found.epsilon, len(rows) - 0.3),
                xytext=(3, 2),
                textcoords="offset points",
                color=RED,
                fontsize=8,
                annotation_clip=False,
            )
        labels = [f"{_method(b.method)}, {b.observer}" for b in rows]
        axes.set_yticks(range(len(rows)), labels)
        most = max([found.epsilon or 0.0, *(b.ceiling or b.epsilon for b in bounds)])
        axes.set(xlabel="ε", xlim=(0, 1.12 * max(most, 0.1)), ylim=(-0.6, len(rows) - 0.1))
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
    best = max((b for b in bounds if b.kind == "bound"), key=lambda b: b.epsilon, default=None)
    return Plot(
        drawn.svg,
        f"Dot chart of {len(bounds)} lower bounds on epsilon"
        + (f"; the largest is {best.epsilon:.2f} ({_method(best.method)})" if best else "")
        + (f"; {epsilon_text(found.epsilon)} is guaranteed." if found.epsilon else "."),
        "Filled: with stated confidence. Hollow: model or estimate. Ticks: the most that could "
        "have been shown.",
    )


def roc(observers: Sequence[Observer], curve: Sequence[CurvePoint]) -> Plot | None:
    """True against false positive rate on logarithmic axes, with 95 % intervals."""
    observers = [observer for observer in observers if observer.roc]
    if not observers:
        return None
    with _figure(4.6, 3.8) as (axes, drawn):
        for number, observer in enumerate(observers):
            color = _SERIES[number % len(_SERIES)]
            x = [point.false_positive_rate for point in observer.roc]
            axes.fill_between(
                x,
                [max(point.low, 1e-6) for point in observer.roc],
                [point.high for point in observer.roc],
                color=color,
                alpha=0.15,
                linewidth=0,
            )
            y = [max(point.true_positive_rate, 1e-6) for point in observer.roc]
            axes.plot(x, y, color=color, linewidth=1.5, label=f"{observer.observer} observer")
        low = min(point.false_positive_rate for o in observers for point in o.roc)
        grid = [low * (1 / low) ** (i / 60) for i in range(61)]
        axes.plot(grid, grid, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)), label="guessing")
        if curve:
            worst = [worst_power(curve, x) for x in grid]
            axes.plot(grid, worst, color=RED, linewidth=1.2, label="most that is allowed")
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="false positive rate",
            ylabel="true positive rate",
            xlim=(low, 1),
            ylim=(low, 1.05),
        )
        axes.grid(which="major")
        axes.legend(loc="lower right")
    shown = "; ".join(f"{o.observer} observer: area {o.auc:.3f}" for o in observers)
    return Plot(
        drawn.svg,
        f"ROC curves on logarithmic axes. {shown}. Guessing would be 0.5.",
        "Shaded: 95 % Clopper-Pearson intervals of each point. Above the red line no attacker can "
        "be, if the guarantee holds.",
    )


def ladder(found: InversionSection) -> Plot | None:
    """How near each rung came, against the mean image."""
    rungs = list(reversed(found.rungs))
    if not rungs:
        return None
    with _figure(6.4, 0.7 + 0.25 * len(rungs)) as (axes, drawn):
        for place, rung in enumerate(rungs):
            color = RED if rung.recovered else GREEN
            axes.plot(rung.baseline_db, place, "|", color=INK, markersize=9)
            axes.plot(rung.psnr_db, place, "o", color=color, markersize=5)
        axes.set_yticks(range(len(rungs)), [rung.title for rung in rungs])
        axes.set(xlabel="dB", ylim=(-0.6, len(rungs) - 0.4))
        axes.set_xlim(0, 1.05 * max(max(r.psnr_db, r.baseline_db) for r in rungs))
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0, labelsize=7.5)
    recovered = [rung.title for rung in found.rungs if rung.recovered]
    return Plot(
        drawn.svg,
        f"Dot chart: how near reconstructions came, for {len(rungs)} kinds of protection. "
        f"Recovered: {', '.join(recovered) or 'none'}.",
        "Red: recovered. Green: not better than the mean image, which is the tick. "
        "Above 30 dB a picture is hard to tell from the record.",
    )


def accuracy_over_rounds(found: UtilitySection) -> Plot | None:
    """Accuracy by round; the same run without privacy as a line."""
    points = [
        (number, value)
        for number, value in zip(found.rounds, found.accuracy_by_round, strict=True)
        if value is not None
    ]
    if len(points) < 2:
        return None
    with _figure(4.3, 2.5) as (axes, drawn):
        axes.plot([p[0] for p in points], [100 * p[1] for p in points], color=GREEN, lw=1.6)
        plain = found.accuracy_without_privacy
        if plain is not None:
            axes.axhline(100 * plain, color=MUTED, linewidth=1.0, linestyle=(0, (5, 3)))
            axes.annotate(
                f"without privacy {100 * plain:.1f} %",
                (points[0][0], 100 * plain),
                xytext=(2, -10),
                textcoords="offset points",
                color=MUTED,
                fontsize=8,
            )
        axes.set(xlabel="round", ylabel="accuracy, %", ylim=(0, 102))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
    return Plot(
        drawn.svg,
        f"Line chart: accuracy on the server's test records, {100 * points[-1][1]:.1f} % after "
        f"round {points[-1][0]}"
        + (f"; {100 * plain:.1f} % without privacy." if plain is not None else "."),
        "Accuracy on the server's test records.",
    )


def group_accuracy(found: UtilitySection) -> Plot | None:
    """Accuracy of each class with its interval."""
    groups = found.groups
    if not 2 <= len(groups) <= 40:
        return None
    with _figure(4.3, 2.5) as (axes, drawn):
        places = range(len(groups))
        axes.errorbar(
            places,
            [100 * g.accuracy for g in groups],
            yerr=[
                [100 * (g.accuracy - g.low) for g in groups],
                [100 * (g.high - g.accuracy) for g in groups],
            ],
            fmt="o",
            color=GREEN,
            ecolor=LEAF,
            elinewidth=1.4,
            markersize=4,
        )
        axes.set_xticks(places, [g.group.removeprefix("class ") for g in groups])
        axes.set(xlabel="class", ylabel="accuracy, %", ylim=(0, 102))
        axes.grid(axis="y")
    worst = min(groups, key=lambda g: g.accuracy)
    return Plot(
        drawn.svg,
        f"Dot chart: accuracy for each of {len(groups)} classes; the lowest is {worst.group} with "
        f"{100 * worst.accuracy:.1f} %.",
        "Accuracy for each class, with 95 % Clopper-Pearson intervals.",
    )


def batch_sizes(found: SamplingSection) -> Plot | None:
    """How large batches were."""
    if len(found.sizes) < 2 or not found.rates:
        return None
    with _figure(4.6, 2.0) as (axes, drawn):
        axes.bar([s for s, _ in found.sizes], [n for _, n in found.sizes], color=LEAF, width=0.9)
        axes.set(xlabel="records in a batch", ylabel="batches")
        axes.grid(axis="y")
    return Plot(
        drawn.svg,
        f"Bar chart: {found.batches:,} batches held between {found.smallest_batch} and "
        f"{found.largest_batch} records, {found.mean_batch_size or 0:.1f} on average.",
        "Sizes of all batches in the log, over all clients.",
    )


def accuracy_against_epsilon(comparison: Comparison) -> Plot | None:
    """A dot for each run; runs without privacy as lines."""
    shown = [run for run in comparison.runs if run.accuracy is not None]
    dots = [run for run in shown if run.epsilon is not None]
    if not shown:
        return None
    with _figure(6.4, 3.8) as (axes, drawn):
        kinds = sorted({(run.noise, run.encryption) for run in dots})
        for number, (noise, encryption) in enumerate(kinds):
            own = [run for run in dots if (run.noise, run.encryption) == (noise, encryption)]
            axes.plot(
                [run.epsilon or 0.0 for run in own],
                [100 * (run.accuracy or 0.0) for run in own],
                "o",
                color=_SERIES[number % len(_SERIES)],
                label=f"{noise} noise" + (f", {encryption}" if encryption != "none" else ""),
            )
        for run in shown:
            height = 100 * (run.accuracy or 0.0)
            if run.epsilon is None:
                axes.axhline(height, color=MUTED, linewidth=1.0, linestyle=(0, (5, 3)))
            place = (run.epsilon, height) if run.epsilon is not None else (1.0, height)
            across: Any = "data" if run.epsilon is not None else axes.get_yaxis_transform()
            axes.annotate(
                run.run if run.epsilon is not None else f"{run.run} (no privacy)",
                place,
                xycoords=across,
                xytext=(6, 4) if run.epsilon is not None else (-2, 3),
                textcoords="offset points",
                ha="left" if run.epsilon is not None else "right",
                fontsize=7.5,
            )
        if dots:
            axes.set(xscale="log")
            axes.legend(loc="lower right")
        axes.set(xlabel="ε", ylabel="accuracy, %")
        axes.margins(x=0.15, y=0.12)
        axes.grid()
    listed = "; ".join(
        f"{run.run}: epsilon {epsilon_text(run.epsilon)}, {100 * (run.accuracy or 0.0):.1f} %"
        for run in shown
    )
    return Plot(drawn.svg, f"Scatter chart of accuracy against epsilon. {listed}.", "")


@dataclass
class _Drawn:
    svg: str = ""


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Axes, _Drawn]]:
    """Axes to draw on, in inches; the drawing is there when the block ends."""
    drawn = _Drawn()
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.add_subplot(), drawn
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    drawn.svg = text[text.index("<svg") :]


def _method(name: str) -> str:
    names = {
        "steinke": "Steinke et al.",
        "fdp": "f-DP in one run",
        "clopper_pearson": "Clopper-Pearson",
        "gaussian": "Gaussian model",
    }
    return names.get(name, name)
