"""What was measured, beside what is promised."""

from __future__ import annotations

from collections.abc import Sequence

from calyx.audit.findings.promised.guarantee import GuaranteeSection
from calyx.audit.report.plots.drawing import GREEN, MUTED, RED, Plot, figure
from calyx.audit.section import LowerBound
from calyx.shared.privacy.epsilon_text import epsilon_text, lower_bound_text


def bounds_against_guarantee(bounds: Sequence[LowerBound], found: GuaranteeSection) -> Plot | None:
    """Each lower bound as a dot, its ceiling as a tick, the guarantee as a line."""
    if not bounds:
        return None
    rows = list(reversed(bounds))
    with figure(4.3, 0.7 + 0.22 * len(rows)) as (axes, drawn):
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
        + (
            f"; the largest is {lower_bound_text(best.epsilon)} ({_method(best.method)})"
            if best
            else ""
        )
        + (f"; {epsilon_text(found.epsilon)} is guaranteed." if found.epsilon else "."),
        "Filled: with stated confidence. Hollow: model or estimate. Ticks: the most that could "
        "have been shown.",
    )


def _method(name: str) -> str:
    names = {
        "steinke": "Steinke et al.",
        "fdp": "f-DP in one run",
        "clopper_pearson": "Clopper-Pearson",
        "gaussian": "Gaussian model",
        "cosine": "cosine estimate",
    }
    return names.get(name, name)
