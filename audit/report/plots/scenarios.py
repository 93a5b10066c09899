"""How near reconstructions came."""

from __future__ import annotations

from calyx.audit.findings.measured.inversion import InversionSection
from calyx.audit.report.plots.drawing import GREEN, INK, RED, Plot, figure


def ladder(found: InversionSection) -> Plot | None:
    """How near each rung came, against the mean image."""
    rungs = list(reversed(found.rungs))
    if not rungs:
        return None
    with figure(6.4, 0.7 + 0.25 * len(rungs)) as (axes, drawn):
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
