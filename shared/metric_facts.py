"""What people have to know about a metric to read its values, and how these are written.

It goes into the journal, and every display takes its words and units from there. Without PyTorch,
so that a terminal or a report can show a run without loading it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class MetricFacts:
    """How the values of a metric are to be read.

    Attributes:
        name: in files and messages: ``balanced_accuracy``.
        shown: what people read: ``balanced accuracy``.
        is_share: whether it is a share from 0 to 1, shown in percent.
        higher_is_better: False for an error.
    """

    name: str
    shown: str
    is_share: bool = False
    higher_is_better: bool = True

    @classmethod
    def read(cls, stored: object) -> MetricFacts:
        """From the JSON form, which may come from elsewhere.

        Raises:
            ValueError: it is something else.
        """
        kinds = {"name": str, "shown": str, "is_share": bool, "higher_is_better": bool}
        if not isinstance(stored, Mapping) or not all(
            isinstance(stored.get(name), kind) for name, kind in kinds.items()
        ):
            raise ValueError(f"{str(stored)[:80]} is not what is told of a metric")
        return cls(**{name: stored[name] for name in kinds})

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @property
    def heading(self) -> str:
        """`shown` as a sentence begins; the rest of it may be an abbreviation and stays."""
        return self.shown[:1].upper() + self.shown[1:]

    @property
    def direction(self) -> str:
        """A remark for readers who take a larger value for a better one; empty if it is."""
        return "" if self.higher_is_better else "lower is better"

    def text(self, value: float) -> str:
        """A value: a share in percent, anything else as a number."""
        return f"{100 * value:.1f} %" if self.is_share else number_of_any_size(value)

    def named_text(self, value: float | None) -> str:
        """Name, value and what is better, where values of several metrics stand in a line."""
        shown = "-" if value is None else self.text(value)
        return f"{self.shown} {shown}" + (f" ({self.direction})" if self.direction else "")

    def cost(self, private: float, plain: float) -> float:
        """What privacy cost, above 0 if the private model is worse; in the metric's own unit."""
        return plain - private if self.higher_is_better else private - plain

    def cost_text(self, cost: float) -> str:
        """A result of `cost`: of a share in percentage points."""
        return f"{100 * cost:.1f} points" if self.is_share else number_of_any_size(cost)


# The headline of runs from before there were tasks: all were classifications.
ACCURACY = MetricFacts("accuracy", "accuracy", is_share=True)


def number_of_any_size(value: float) -> str:
    """About four digits of a figure whose unit is the data's own: ``0.452``, ``53.21``, ``1,512``.

    >>> number_of_any_size(0.00123456)
    '0.00123'
    """
    size = abs(value)
    if not math.isfinite(value) or size >= 1e7 or 0 < size < 0.01:
        return f"{value:.3g}"
    # A figure that is rounded up to 0.1 has three digits as it is.
    for least, digits in ((1000, 0), (100, 1), (10, 2), (0.09995, 3)):
        if size >= least:
            return f"{value:,.{digits}f}"
    return f"{value:.4f}" if size else "0.000"
