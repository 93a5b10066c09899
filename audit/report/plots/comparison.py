"""Several runs in one figure."""

from __future__ import annotations

from typing import Any

from matplotlib.ticker import LogLocator, NullFormatter

from calyx.audit.report.comparison import Comparison
from calyx.audit.report.plots.drawing import MUTED, SERIES, Plot, figure
from calyx.shared.privacy.epsilon_text import epsilon_text


def accuracy_against_epsilon(comparison: Comparison) -> Plot | None:
    """A dot for each run; runs without privacy as lines."""
    shown = [run for run in comparison.runs if run.accuracy is not None]
    dots = [run for run in shown if run.epsilon is not None]
    if not shown:
        return None
    with figure(6.4, 3.8) as (axes, drawn):
        kinds = sorted({(run.noise, run.encryption) for run in dots})
        for number, (noise, encryption) in enumerate(kinds):
            own = [run for run in dots if (run.noise, run.encryption) == (noise, encryption)]
            axes.plot(
                [run.epsilon or 0.0 for run in own],
                [100 * (run.accuracy or 0.0) for run in own],
                "o",
                color=SERIES[number % len(SERIES)],
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
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 8)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.legend(loc="lower right")
        axes.set(xlabel="ε", ylabel="accuracy, %")
        axes.margins(x=0.15, y=0.12)
        axes.grid()
    listed = "; ".join(
        f"{run.run}: epsilon {epsilon_text(run.epsilon)}, {100 * (run.accuracy or 0.0):.1f} %"
        for run in shown
    )
    return Plot(drawn.svg, f"Scatter chart of accuracy against epsilon. {listed}.", "")
