"""Batches, as they were logged."""

from __future__ import annotations

from calyx.audit.findings.promised.sampling import SamplingSection
from calyx.audit.report.plots.drawing import LEAF, Plot, figure


def batch_sizes(found: SamplingSection) -> Plot | None:
    """How large batches were."""
    if len(found.sizes) < 2 or not found.rates:
        return None
    with figure(4.6, 2.0) as (axes, drawn):
        axes.bar([s for s, _ in found.sizes], [n for _, n in found.sizes], color=LEAF, width=0.9)
        axes.set(xlabel="records in a batch", ylabel="batches")
        axes.grid(axis="y")
    return Plot(
        drawn.svg,
        f"Bar chart: {found.batches:,} batches held between {found.smallest_batch} and "
        f"{found.largest_batch} records, {found.mean_batch_size or 0:.1f} on average.",
        "Sizes of all batches in the log, over all clients.",
    )
