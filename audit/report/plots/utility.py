"""What the model is good for."""

from __future__ import annotations

from matplotlib.ticker import MaxNLocator

from calyx.audit.findings.measured.utility import UtilitySection
from calyx.audit.report.plots.drawing import GREEN, LEAF, MUTED, Plot, figure


def accuracy_over_rounds(found: UtilitySection) -> Plot | None:
    """Accuracy by round; the same run without privacy as a line."""
    points = [
        (number, value)
        for number, value in zip(found.rounds, found.accuracy_by_round, strict=True)
        if value is not None
    ]
    if len(points) < 2:
        return None
    with figure(4.3, 2.5) as (axes, drawn):
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
