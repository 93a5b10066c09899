"""One figure by which a model is judged on test records."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from calyx.shared.errors import ModelError
from calyx.shared.metric_facts import MetricFacts

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
# Metrics are computed in float32; more digits are rounding.
_DIGITS = 7


@dataclass(frozen=True)
class Metric:
    """A figure computed from predictions and labels of all test records at once.

    Attributes:
        name: in files and messages: ``balanced_accuracy``.
        measure: of predictions (n, ...) and labels (n, ...), a number or a tensor of one.
        shown: what people read: ``balanced accuracy``; the name by default.
        is_share: whether it is a share from 0 to 1, shown in percent.
        higher_is_better: False for an error.

    Raises:
        ModelError: a name that is not lower-case letters, digits and underscores, 32 at most.
    """

    name: str
    measure: Callable[[torch.Tensor, torch.Tensor], Any] = field(repr=False)
    shown: str = ""
    is_share: bool = False
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ModelError(
                f"a metric cannot be called {self.name[:40]!r}",
                hint="use up to 32 lower-case letters, digits and underscores, a letter first",
            )
        object.__setattr__(self, "shown", self.shown or self.name.replace("_", " "))

    @classmethod
    def of(cls, name: str, measure: Metric | Callable[..., Any]) -> Metric:
        """A metric of the user's own: a function, or a metric object of torchmetrics."""
        if isinstance(measure, Metric):
            return measure
        is_better = getattr(measure, "higher_is_better", None)
        return cls(name, measure, higher_is_better=is_better is not False)

    def value(self, predictions: torch.Tensor, labels: torch.Tensor) -> float | None:
        """The figure; None where these records do not define it.

        Raises:
            ModelError: a metric of the user's own fails, or gives no number.
        """
        try:
            found = float(self.measure(predictions, labels))
        except Exception as error:
            # The user's own metric may fail with anything.
            raise ModelError(
                f"metric {self.name} failed with {type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}",
                hint="it is called with all predictions and labels and returns one number",
            ) from error
        return float(f"{found:.{_DIGITS}g}") if math.isfinite(found) else None

    def facts(self) -> MetricFacts:
        """How its values are read."""
        return MetricFacts(self.name, self.shown, self.is_share, self.higher_is_better)
