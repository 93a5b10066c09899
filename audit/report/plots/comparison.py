"""Several runs in one figure."""

from __future__ import annotations

from typing import Any

from matplotlib.ticker import LogLocator, NullFormatter

from calyx.audit.report.comparison import Comparison
from calyx.audit.report.plots.drawing import MUTED, SERIES, Plot, axis_label, figure, on_axis
from calyx.shared.privacy.epsilon_text import epsilon_text


def metric_against_epsilon(comparison: Comparison) -> Plot | None:
    """A dot for each run; runs without privacy as lines; None if they have several metrics."""
    metric = comparison.metric
    shown = [(run, run.value) for run in comparison.runs if run.value is not None]
    dots = [(run, run.epsilon, value) for run, value in shown if run.epsilon is not None]
    if not shown or metric is None:
        return None
    with figure(6.4, 3.8) as (axes, drawn):
        kinds = sorted({(run.noise, run.encryption) for run, _, _ in dots})
        for number, (noise, encryption) in enumerate(kinds):
            own = [dot for dot in dots if (dot[0].noise, dot[0].encryption) == (noise, encryption)]
            axes.plot(
                [epsilon for _, epsilon, _ in own],
                [on_axis(metric, value) for _, _, value in own],
                "o",
                color=SERIES[number % len(SERIES)],
                label=f"{noise} noise" + (f", {encryption}" if encryption != "none" else ""),
            )
        for run, value in shown:
            height = on_axis(metric, value)
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
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 8)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.legend(loc="lower right" if metric.higher_is_better else "upper right")
        axes.set(xlabel="ε", ylabel=axis_label(metric))
        axes.margins(x=0.15, y=0.12)
        axes.grid()
    listed = "; ".join(
        f"{run.run}: epsilon {epsilon_text(run.epsilon)}, {metric.text(value)}"
        for run, value in shown
    )
    caption = f"{metric.heading}: {metric.direction}." if metric.direction else ""
    return Plot(drawn.svg, f"Scatter chart of {metric.shown} against epsilon. {listed}.", caption)
