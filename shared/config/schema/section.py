"""What all sections share: frozen, no unknown keys, and the types of their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, LiteralString

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

# Type of the validation error that carries the faults between sections.
FAULTS: LiteralString = "calyx_faults"

Positive = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """Base of every section: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def written_as(form: Callable[[str], Any]) -> AfterValidator:
    """Text that `form` can read, kept as text."""

    def check(text: str) -> str:
        form(text)
        return text

    return AfterValidator(check)
