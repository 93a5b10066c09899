"""``report.html``: one file that needs nothing else, not even JavaScript."""

from __future__ import annotations

import base64
import io
from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from calyx.audit.findings.measured.canaries import CanarySection
from calyx.audit.findings.measured.inversion import InversionSection
from calyx.audit.findings.measured.membership import MembershipSection
from calyx.audit.findings.measured.pictures import Picture
from calyx.audit.report import tables
from calyx.audit.report.comparison import Comparison
from calyx.audit.report.headline import bounds_of_strongest
from calyx.audit.report.plots.bounds import bounds_against_guarantee
from calyx.audit.report.plots.comparison import metric_against_epsilon
from calyx.audit.report.plots.drawing import Plot
from calyx.audit.report.plots.guarantee import epsilon_delta, epsilon_over_rounds
from calyx.audit.report.plots.roc import Roc, roc
from calyx.audit.report.plots.sampling import batch_sizes
from calyx.audit.report.plots.scenarios import scenarios
from calyx.audit.report.plots.utility import group_accuracy, metric_over_rounds
from calyx.audit.report.schema import Report
from calyx.shared.privacy.epsilon_text import (
    delta_text,
    epsilon_text,
    lower_bound_text,
    promise_text,
)


def to_html(report: Report) -> str:
    """The page, made from the same data as ``report.json`` and nothing else."""
    template = _environment().get_template("page.html.j2")
    return template.render(r=report, figures=_figures(report), tables=tables) + "\n"


def comparison_to_html(comparison: Comparison) -> str:
    """One page for several runs."""
    template = _environment().get_template("comparison.html.j2")
    figures = {"comparison": metric_against_epsilon(comparison)}
    return template.render(c=comparison, figures=figures, tables=tables) + "\n"


def _figures(report: Report) -> dict[str, Plot | None]:
    """All figures by name, None where there is nothing to draw."""
    inversion = report.inversion if isinstance(report.inversion, InversionSection) else None
    strongest = bounds_of_strongest(report.lower_bounds)
    return {
        "epsilon_over_rounds": epsilon_over_rounds(report.guarantee),
        "epsilon_delta": epsilon_delta(report.guarantee),
        "bounds_of_strongest": bounds_against_guarantee(strongest, report.guarantee),
        "bounds": bounds_against_guarantee(report.lower_bounds, report.guarantee),
        "roc": _canary_roc(report),
        "membership_roc": _membership_roc(report),
        "scenarios": scenarios(inversion) if inversion else None,
        "metric": metric_over_rounds(report.utility),
        "groups": group_accuracy(report.utility),
        "batches": batch_sizes(report.sampling),
    }


def _canary_roc(report: Report) -> Plot | None:
    if not isinstance(report.canaries, CanarySection):
        return None
    curves = [Roc(f"{o.observer} observer", o.auc, o.roc) for o in report.canaries.observers]
    shaded = "95 % Clopper-Pearson intervals of each point"
    red = "no attacker can be above it if the guarantee holds"
    return roc(curves, report.guarantee.curve, shaded, red)


def _membership_roc(report: Report) -> Plot | None:
    if not isinstance(report.membership, MembershipSection):
        return None
    curves = [Roc(attack.attack, attack.auc, attack.roc) for attack in report.membership.attacks]
    shaded = "95 % Clopper-Pearson intervals, each record taken for one trial"
    # Shadows have fewer records: where those are sampled, another curve through the same point.
    red = "the most that the guarantee of the run itself allows"
    found = report.guarantee
    # The attack is about records; a promise for clients that are left out is weaker for them.
    is_for_records = found.unit == "record" or found.epsilon_record == found.epsilon
    return roc(curves, found.curve if is_for_records else (), shaded, red)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("calyx.audit.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "epsilon": epsilon_text,
        "bound": lower_bound_text,
        "promise": promise_text,
        "up": delta_text,
        "percent": tables.percent,
        "metric": tables.metric_text,
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
