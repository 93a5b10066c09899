"""ROC curves, on logarithmic axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from calyx.audit.findings.measured.roc import RocPoint
from calyx.audit.findings.promised.privacy_curve import CurvePoint, worst_power
from calyx.audit.report.plots.drawing import MUTED, RED, SERIES, Plot, figure


@dataclass(frozen=True)
class Roc:
    """One curve.

    Attributes:
        name: the attack or observer it belongs to.
        area: under the curve.
        points: by increasing false positive rate.
    """

    name: str
    area: float
    points: Sequence[RocPoint]


def roc(curves: Sequence[Roc], allowed: Sequence[CurvePoint], shaded: str, red: str) -> Plot | None:
    """True against false positive rate on logarithmic axes, with 95 % intervals.

    Args:
        curves: to be drawn.
        allowed: pairs (epsilon, delta) of the guarantee; empty without one.
        shaded: what the intervals are, for the caption.
        red: what the line of `allowed` is, for the caption.
    """
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return None
    with figure(4.6, 3.8) as (axes, drawn):
        for number, curve in enumerate(curves):
            color = SERIES[number % len(SERIES)]
            x = [point.false_positive_rate for point in curve.points]
            lows = [max(point.low, 1e-6) for point in curve.points]
            highs = [point.high for point in curve.points]
            axes.fill_between(x, lows, highs, color=color, alpha=0.15, linewidth=0)
            y = [max(point.true_positive_rate, 1e-6) for point in curve.points]
            axes.plot(x, y, color=color, linewidth=1.5, label=curve.name)
        low = min(point.false_positive_rate for curve in curves for point in curve.points)
        grid = [low * (1 / low) ** (i / 60) for i in range(61)]
        axes.plot(grid, grid, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)), label="guessing")
        if allowed:
            worst = [worst_power(allowed, x) for x in grid]
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
    shown = "; ".join(f"{curve.name}: area {curve.area:.3f}" for curve in curves)
    return Plot(
        drawn.svg,
        f"ROC curves on logarithmic axes. {shown}. Guessing would be 0.5.",
        f"Shaded: {shaded}." + (f" Red: {red}." if allowed else ""),
    )
