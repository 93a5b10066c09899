"""What every figure of the report shares: colours, axes, and SVG with the same bytes each time.

Letters are drawn as paths, so a figure looks the same wherever it is opened, and no font is loaded.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calyx.shared.metric_facts import MetricFacts

INK, MUTED, GREEN, LEAF, RED, RULE = (
    "#1b1b1b",
    "#5d635e",
    "#2f6b45",
    "#8fb59a",
    "#9b2c1f",
    "#d9ddd8",
)
SERIES = (GREEN, "#7a5c12", "#40558f", "#8a3f6b")
_STYLE: Any = {
    "svg.fonttype": "path",
    "svg.hashsalt": "calyx",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
_MAX_LINES = 12


@dataclass(frozen=True)
class Plot:
    """A figure for the page.

    Attributes:
        svg: the drawing, without XML declaration.
        alt: what it shows, for readers who cannot see it.
        caption: below the figure.
    """

    svg: str
    alt: str
    caption: str


@dataclass
class Drawn:
    """Filled when the block of `figure` ends."""

    svg: str = ""


@contextmanager
def figure(width: float, height: float) -> Iterator[tuple[Axes, Drawn]]:
    """Axes to draw on, in inches; the drawing is there when the block ends."""
    drawn = Drawn()
    with mpl.rc_context(_STYLE):
        canvas = Figure(figsize=(width, height), layout="constrained")
        yield canvas.add_subplot(), drawn
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    drawn.svg = text[text.index("<svg") :]


def on_axis(metric: MetricFacts, value: float) -> float:
    """Where a value of a metric is drawn: a share in percent."""
    return 100 * value if metric.is_share else value


def axis_label(metric: MetricFacts) -> str:
    """What the axis of a metric is called."""
    # A dollar sign would begin a formula.
    name = metric.shown.replace("$", r"\$")
    return f"{name}, %" if metric.is_share else name
