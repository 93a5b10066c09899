"""The parts of the report's sections.

A finding is a module of `calyx.audit.findings` with one pure function ::

    def find(run: AuditedRun, store: EvidenceStore) -> Section | None

which takes everything from the run folder and the evidence, and returns None if its attack was not
run. One line in `calyx.audit.report.build` gives it its place in the report.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """Base of everything in the report: frozen, nothing unknown, no infinite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LowerBound(Section):
    """One lower bound on what the mechanism gives away, measured."""

    method: str = Field(description="for example 'f-DP in one run'")
    observer: str = Field(description="who would see as much, for example 'sees every release'")
    kind: Literal["bound", "model", "estimate"] = Field(
        description="bound: holds with the stated confidence; model: if the scores are Gaussian; "
        "estimate: no confidence is claimed"
    )
    epsilon: float = Field(ge=0)
    delta: float = Field(ge=0, lt=1)
    confidence: float = Field(ge=0, lt=1, description="0: none is claimed")
    ceiling: float | None = Field(
        None, description="largest epsilon that these guesses could have shown; None: no limit"
    )


class AttackSection(Section):
    """A section made by an attack. Subclasses add what is their own."""

    title: str = Field(description="heading, for example 'Can inserted records be found?'")
    answer: str = Field(description="what was found, in one or two plain sentences")
    setup: dict[str, str] = Field(
        default_factory=dict, description="how it was done: unit, sizes, rules, confidence"
    )
    bounds: tuple[LowerBound, ...] = Field(
        (), description="each is drawn against the guarantee; the names become `lower_bounds`"
    )
    caveats: tuple[str, ...] = Field((), description="what this does not show")
