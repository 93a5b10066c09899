"""How near reconstructions came."""

from __future__ import annotations

from calyx.audit.findings.measured.inversion import InversionSection
from calyx.audit.report.plots.drawing import GREEN, INK, RED, Plot, figure


def scenarios(found: InversionSection) -> Plot | None:
    """How near each scenario came, against the mean image."""
    shown = list(reversed(found.rungs))
    if not shown:
        return None
    with figure(6.4, 0.7 + 0.25 * len(shown)) as (axes, drawn):
        for place, scenario in enumerate(shown):
            color = RED if scenario.recovered else GREEN
            axes.plot(scenario.baseline_db, place, "|", color=INK, markersize=9)
            axes.plot(scenario.psnr_db, place, "o", color=color, markersize=5)
        axes.set_yticks(range(len(shown)), [scenario.title for scenario in shown])
        axes.set(xlabel="dB", ylim=(-0.6, len(shown) - 0.4))
        axes.set_xlim(0, 1.05 * max(max(r.psnr_db, r.baseline_db) for r in shown))
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0, labelsize=7.5)
    recovered = [scenario.title for scenario in found.rungs if scenario.recovered]
    return Plot(
        drawn.svg,
        f"Dot chart: how near reconstructions came, for {len(shown)} kinds of protection. "
        f"Recovered: {', '.join(recovered) or 'none'}.",
        "Red: recovered. Green: not better than the mean image, which is the tick. "
        "Above 30 dB a picture is hard to tell from the record.",
    )
