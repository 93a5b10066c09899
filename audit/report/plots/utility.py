"""What the model is good for."""

from __future__ import annotations

from matplotlib.ticker import MaxNLocator

from calyx.audit.findings.measured.utility import UtilitySection
from calyx.audit.report.plots.drawing import (
    GREEN,
    LEAF,
    MUTED,
    Plot,
    axis_label,
    figure,
    on_axis,
)


def metric_over_rounds(found: UtilitySection) -> Plot | None:
    """The headline by round; the same run without privacy as a line."""
    headline = found.headline
    metric, plain = headline.metric, headline.without_privacy
    points = [
        (number, value)
        for number, value in zip(found.rounds, headline.by_round, strict=True)
        if value is not None
    ]
    if len(points) < 2:
        return None
    with figure(4.3, 2.5) as (axes, drawn):
        heights = [on_axis(metric, value) for _, value in points]
        axes.plot([number for number, _ in points], heights, color=GREEN, lw=1.6)
        if plain is not None:
            height = on_axis(metric, plain)
            axes.axhline(height, color=MUTED, linewidth=1.0, linestyle=(0, (5, 3)))
            axes.annotate(
                f"without privacy {metric.text(plain)}",
                (points[0][0], height),
                xytext=(2, -10 if metric.higher_is_better else 3),
                textcoords="offset points",
                color=MUTED,
                fontsize=8,
            )
        axes.set(xlabel="round", ylabel=axis_label(metric))
        if metric.is_share:
            axes.set(ylim=(0, 102))
        else:
            axes.margins(y=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
    direction = f" ({metric.direction})" if metric.direction else ""
    return Plot(
        drawn.svg,
        f"Line chart: {metric.shown} on the server's test records, {metric.text(points[-1][1])} "
        f"after round {points[-1][0]}"
        + (f"; {metric.text(plain)} without privacy." if plain is not None else "."),
        f"{metric.heading} on the server's test records{direction}.",
    )


def group_accuracy(found: UtilitySection) -> Plot | None:
    """Accuracy of each class with its interval."""
    groups = found.groups
    if not 2 <= len(groups) <= 40:
        return None
    with figure(4.3, 2.5) as (axes, drawn):
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
