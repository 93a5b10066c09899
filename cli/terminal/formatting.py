"""How figures are written, the same everywhere."""

from __future__ import annotations

import math

from calyx.shared.metric_facts import MetricFacts
from calyx.shared.privacy.epsilon_text import delta_text, epsilon_text

NO_PRIVACY = "no differential privacy"


def bound_text(bound: float | None, headline: float | None) -> str:
    """One accountant's epsilon; a dash where it has no bound but another one gives the headline."""
    has_headline = headline is not None and math.isfinite(headline)
    is_silent = bound is None or math.isinf(bound)
    return "-" if is_silent and has_headline else epsilon_text(bound)


def percent_text(share: float | None) -> str:
    """A share of one as per cent."""
    return "-" if share is None or math.isnan(share) else f"{100 * share:.1f} %"


def metric_text(metric: MetricFacts, value: float | None) -> str:
    """A value of a metric; a dash where it is undefined, as for a diverged model."""
    return "-" if value is None or math.isnan(value) else metric.text(value)


def number_text(value: float | None, digits: int = 3) -> str:
    """A plain figure with `digits` decimals."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def count_text(count: int, noun: str) -> str:
    """``1 client``, ``1,437 records``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def bytes_text(size_bytes: float) -> str:
    """Decimal units, about three digits: ``37.0 kB``."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while size_bytes >= 999.5 and len(units) > 1:
        size_bytes /= 1000
        units.pop(0)
    digits = 0 if units[0] == "B" or size_bytes >= 99.95 else 1
    return f"{size_bytes:.{digits}f} {units[0]}"


def duration_text(seconds: float) -> str:
    """``0.8 s``, ``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def delta_warning(delta: float, units: int, unit: str) -> str | None:
    """A sentence if delta is too large for this number of records or clients in all, else None."""
    from calyx.shared.privacy.accounting import delta_is_small

    if delta_is_small(delta, units):
        return None
    return (
        f"delta = {delta_text(delta)} is not below 1/n = {1 / units:.2g} for {units:,} {unit}s: a "
        f"mechanism that gives away a whole {unit} could pass, and the report will not call this "
        "guaranteed; set privacy.delta below it"
    )
