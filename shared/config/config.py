"""A whole run: all sections, checked together."""

from __future__ import annotations

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from calyx.shared.config.rules import cross_section_faults
from calyx.shared.config.schema import FAULTS, Sections


class Config(Sections):
    """A whole run. Two equal configs and equal data give bit-identical models."""

    @model_validator(mode="after")
    def _sections_agree(self) -> Config:
        if faults := cross_section_faults(self):
            raise PydanticCustomError(FAULTS, "sections contradict each other", {"faults": faults})
        return self
