"""What is promised, as curves."""

from __future__ import annotations

from matplotlib.ticker import MaxNLocator

from calyx.audit.findings.promised.guarantee import GuaranteeSection
from calyx.audit.report.plots.drawing import GREEN, INK, MUTED, RED, SERIES, Plot, figure
from calyx.shared.privacy.epsilon_text import delta_text, epsilon_text, promise_text

_MAX_LINES = 12


def epsilon_over_rounds(found: GuaranteeSection) -> Plot | None:
    """Epsilon over rounds, a line for each group of clients with equal charges; the budget."""
    lines = [line for line in found.by_round if len(line.rounds) > 1]
    if not lines:
        return None
    with figure(4.3, 2.7) as (axes, drawn):
        for number, line in enumerate(lines[:_MAX_LINES]):
            whole = len(lines) == 1
            axes.plot(
                line.rounds,
                line.epsilons,
                color=GREEN if whole else SERIES[number % len(SERIES)],
                alpha=1.0 if whole else 0.75,
                linewidth=1.8 if whole else 1.1,
            )
        last = max(line.rounds[-1] for line in lines)
        if found.epsilon_target is not None:
            axes.axhline(found.epsilon_target, color=RED, linewidth=1.0, linestyle=(0, (5, 3)))
            axes.annotate(
                f"budget {promise_text(found.epsilon_target)}",
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
        f"Line chart: epsilon grows from {epsilon_text(one.epsilons[0])} after round "
        f"{one.rounds[0]} to {epsilon_text(max(line.epsilons[-1] for line in lines))} after round "
        f"{last}{several}"
        + (
            f"; the budget is {promise_text(found.epsilon_target)}."
            if found.epsilon_target
            else "."
        ),
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
    with figure(4.3, 2.7) as (axes, drawn):
        axes.plot([p.delta for p in points], [p.epsilon for p in points], color=GREEN, lw=1.8)
        axes.plot([found.delta], [found.epsilon], "o", color=INK, markersize=5)
        axes.annotate(
            f"({epsilon_text(found.epsilon)}, {delta_text(found.delta)})",
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
        f"Line chart: epsilon against delta, from {epsilon_text(points[0].epsilon)} at delta "
        f"{delta_text(points[0].delta)} down to {epsilon_text(points[-1].epsilon)} at delta "
        f"{delta_text(points[-1].delta)}; the headline is epsilon {epsilon_text(found.epsilon)} at "
        f"delta {delta_text(found.delta)}.",
        "Every pair (ε, δ) on the line holds, all at once.",
    )
