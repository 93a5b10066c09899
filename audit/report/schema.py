"""The report as data: ``report.json``; ``report.html`` is a view of it.

`SCHEMA` changes when a reader of the file could stumble: a field that is renamed, removed or means
something else. Fields may be added under the same version. `docs/report-schema.md` explains it.
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import Field, SerializeAsAny

from calyx.audit.findings.measured.replay import ReplaySection
from calyx.audit.findings.measured.utility import UtilitySection
from calyx.audit.findings.promised.agreement import AgreementSection
from calyx.audit.findings.promised.composition import CompositionSection
from calyx.audit.findings.promised.guarantee import GuaranteeSection
from calyx.audit.findings.promised.limits import LimitsSection
from calyx.audit.findings.promised.mechanism import MechanismSection
from calyx.audit.findings.promised.parties import PartiesSection
from calyx.audit.findings.promised.plain_words import PlainWordsSection
from calyx.audit.findings.promised.sampling import SamplingSection
from calyx.audit.findings.promised.uncounted_accesses import UncountedAccessesSection
from calyx.audit.section import LowerBound, Section

SCHEMA: Literal["calyx-audit-report/1"] = "calyx-audit-report/1"


class RunFacts(Section):
    """Which run this is about."""

    name: str
    preset: str
    started_at: str
    clients: int
    train_records: int
    data: str
    rounds: int
    engine: str
    config_digest: str


class Step(Section):
    """One thing that the audit did, or left out."""

    name: str
    done: bool
    seconds: float | None
    reason: str = Field(description="why it was left out, or empty")


class AuditFacts(Section):
    """The audit itself."""

    kind: Literal["report", "audit"] = Field(
        description="report: from the run folder alone; audit: with attacks"
    )
    calyx: str
    finished_at: str | None
    seconds: float | None = Field(description="of all attacks; None for a report without")
    steps: tuple[Step, ...]
    evidence_head: str = Field(description="hash of the last line of the chain of evidence")
    evidence_lines: int
    earlier_audits: tuple[str, ...] = Field(
        description="heads of the evidence of earlier audits of this run, put aside by this one"
    )
    run_head: str = Field(description="hash over all files of the run: the same for all its audits")
    number: int = Field(
        description="of this audit among those that this folder knows of; 0: no audit"
    )
    standing: str = Field(description="what number and head show by themselves, and what not")


class Headline(Section):
    """The first thing that is read."""

    status: Literal[
        "guaranteed",
        "not confirmed",
        "moved",
        "contradicted",
        "disagrees",
        "nothing learned",
        "delta too large",
        "no guarantee",
    ]
    simulated: bool = Field(
        description="the run was a simulation: it says what a real one would give, and protects "
        "no one"
    )
    title: str
    guaranteed: str
    for_whom: str
    against_whom: str
    measured: str = Field(description="the measured evidence, in one sentence")
    model: str = Field(description="what the model is good for, by the task's own metric")
    not_guaranteed: tuple[str, ...]


class Report(Section):
    """The whole report. Optional sections are null where their attack was not run."""

    schema_version: Literal["calyx-audit-report/1"] = SCHEMA
    run: RunFacts
    headline: Headline
    agreement: AgreementSection
    replay: ReplaySection | None
    guarantee: GuaranteeSection
    odds: PlainWordsSection
    lower_bounds: tuple[LowerBound, ...]
    sampling: SamplingSection
    composition: CompositionSection
    mechanism: MechanismSection
    parties: PartiesSection
    uncounted: UncountedAccessesSection
    utility: UtilitySection
    canaries: SerializeAsAny[Section] | None
    noise: SerializeAsAny[Section] | None
    membership: SerializeAsAny[Section] | None
    inversion: SerializeAsAny[Section] | None
    views: SerializeAsAny[Section] | None
    limits: LimitsSection
    audit: AuditFacts

    def to_json(self) -> str:
        """The text of ``report.json``: equal reports have equal text."""
        return (
            json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
            + "\n"
        )
