"""``report.html``: one file that needs nothing else, not even JavaScript."""

from __future__ import annotations

import base64
import io
from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from audit.findings.canaries import CanarySection
from audit.findings.inversion import InversionSection
from audit.findings.pictures import Picture
from audit.report import plots, tables
from audit.report.comparison import Comparison
from audit.report.headline import bounds_of_strongest, epsilon_text
from audit.report.plots import Plot
from audit.report.schema import Report


def to_html(report: Report) -> str:
    """The page, made from the same data as ``report.json`` and nothing else."""
    template = _environment().get_template("page.html.j2")
    return template.render(r=report, figures=_figures(report), tables=tables) + "\n"


def comparison_to_html(comparison: Comparison) -> str:
    """One page for several runs."""
    template = _environment().get_template("comparison.html.j2")
    figures = {"comparison": plots.accuracy_against_epsilon(comparison)}
    return template.render(c=comparison, figures=figures, tables=tables) + "\n"


def _figures(report: Report) -> dict[str, Plot | None]:
    """All figures by name, None where there is nothing to draw."""
    canaries = report.canaries if isinstance(report.canaries, CanarySection) else None
    inversion = report.inversion if isinstance(report.inversion, InversionSection) else None
    return {
        "epsilon_over_rounds": plots.epsilon_over_rounds(report.guarantee),
        "epsilon_delta": plots.epsilon_delta(report.guarantee),
        "bounds_of_strongest": plots.bounds_against_guarantee(
            bounds_of_strongest(report.lower_bounds), report.guarantee
        ),
        "bounds": plots.bounds_against_guarantee(report.lower_bounds, report.guarantee),
        "roc": plots.roc(canaries.observers, report.guarantee.curve) if canaries else None,
        "ladder": plots.ladder(inversion) if inversion else None,
        "accuracy": plots.accuracy_over_rounds(report.utility),
        "groups": plots.group_accuracy(report.utility),
        "batches": plots.batch_sizes(report.sampling),
    }


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("audit.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "epsilon": epsilon_text,
        "bound": tables.lower,
        "percent": tables.percent,
        "plain": tables.plain,
        "figures": tables.figures,
        "size": tables.size,
        "duration": _duration,
        "data_uri": _data_uri,
        "png": _png,
    }
    return environment


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def _data_uri(content: str | bytes, kind: str = "image/svg+xml") -> Markup:
    raw = content.encode() if isinstance(content, str) else content
    encoded = base64.b64encode(raw).decode()
    return Markup(f"data:{kind};base64,{encoded}")  # noqa: S704 - base64 holds no markup


def _png(picture: Picture) -> Markup:
    """A small picture, pixel by pixel."""
    buffer = io.BytesIO()
    Image.fromarray(picture.array()).save(buffer, format="PNG")
    return _data_uri(buffer.getvalue(), "image/png")
