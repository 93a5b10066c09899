"""From a run folder and its evidence to a report: pure, so `calyx.audit.verify` can repeat it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.evidence.witnesses import run_head
from calyx.audit.findings.measured import (
    canaries,
    inversion,
    membership,
    noise,
    party_views,
    replay,
    utility,
)
from calyx.audit.findings.measured.canaries import CanarySection
from calyx.audit.findings.promised import (
    agreement,
    composition,
    guarantee,
    limits,
    mechanism,
    parties,
    plain_words,
    sampling,
    uncounted_accesses,
)
from calyx.audit.finished_run import AuditedRun
from calyx.audit.report.headline import headline
from calyx.audit.report.schema import AuditFacts, Report, RunFacts, Step
from calyx.audit.section import LowerBound, Section
from calyx.shared.config.load import digest
from calyx.shared.errors import EvidenceError

Find = Callable[[AuditedRun, EvidenceStore], Section | None]

SETUP = "audit-setup"
# Who signed the head cannot be in here: it is signed after the report is finished.
_STANDING = (
    "Heads and numbers are what this folder says of itself. Anyone who may write to it can remove "
    "earlier audits, or replace run and audit as a whole; audits of a copy are not counted. To see "
    "whether someone other than the auditee has signed the head, since when, and as which audit "
    "of this run it was presented to them, use calyx audit verify --authority-key."
)

# Sections that need an attack: field of the report, and what makes it from the evidence.
ATTACK_SECTIONS: dict[str, Find] = {
    "canaries": canaries.found,
    "noise": noise.find,
    "membership": membership.find,
    "inversion": inversion.find,
    "views": party_views.find,
}


def build(run: AuditedRun, store: EvidenceStore) -> Report:
    """Make the report.

    Raises:
        EvidenceError: a piece of evidence was altered or contradicts what was committed to.
    """
    attacks = dict.fromkeys(("canaries", "noise", "membership", "inversion", "views"), None)
    found: dict[str, Section | None] = attacks | {
        name: _found(name, find, run, store) for name, find in ATTACK_SECTIONS.items()
    }
    sampled = sampling.find(run, store)
    guaranteed = guarantee.computed(run, sampled)
    sections: dict[str, Any] = {
        "agreement": agreement.find(run, store),
        "guarantee": guaranteed,
        "odds": plain_words.in_words(guaranteed),
        "sampling": sampled,
        "composition": composition.find(run, store),
        "mechanism": mechanism.find(run, store),
        "parties": parties.seen(run, guaranteed),
        "uncounted": uncounted_accesses.find(run, store),
        "utility": utility.find(run, store),
        "limits": limits.find(run, store),
        "replay": replay.find(run, store),
    }
    bounds = tuple(bound for section in found.values() for bound in lower_bounds(section, run))
    return Report(
        run=_run_facts(run),
        headline=headline(
            sections["guarantee"],
            sections["parties"],
            sections["agreement"],
            sections["sampling"],
            sections["replay"],
            sections["utility"],
            bounds,
            found,
            rounds_with_effect=run.rounds_with_effect,
            is_audit=store.has(SETUP),
        ),
        lower_bounds=bounds,
        audit=_audit_facts(store),
        **sections,
        **found,
    )


def _found(name: str, find: Find, run: AuditedRun, store: EvidenceStore) -> Section | None:
    try:
        return find(run, store)
    except KeyError as error:
        raise EvidenceError(
            f"the evidence of {name} lacks {error}: it was gathered by another version of Calyx",
            hint=f"audit the run again with: calyx audit run {run.path}",
        ) from None


def lower_bounds(section: Section | None, run: AuditedRun) -> list[LowerBound]:
    """The lower bounds in a section, to be drawn against the guarantee."""
    if not isinstance(section, CanarySection):
        return list(getattr(section, "bounds", ()))
    kinds = {
        "steinke": "bound",
        "fdp": "bound",
        "clopper_pearson": "bound",
        "gaussian": "model",
    }
    return [
        LowerBound(
            method=method,
            observer=observer.observer,
            kind="bound" if kind == "bound" else "model",
            epsilon=getattr(observer, method),
            delta=run.config.privacy.delta,
            confidence=section.confidence,
            ceiling=section.ceilings.get(method),
        )
        for observer in section.observers
        for method, kind in kinds.items()
    ]


def _run_facts(run: AuditedRun) -> RunFacts:
    config = run.config
    data = config.data
    return RunFacts(
        name=run.name,
        preset=config.name,
        started_at=str(run.environment.get("started_at", "")),
        clients=config.federation.clients,
        train_records=sum(run.record_counts),
        data=data.hub_name or data.source,
        rounds=len(run.rounds),
        engine=str(run.start.get("engine", "")),
        config_digest=digest(config),
    )


def _audit_facts(store: EvidenceStore) -> AuditFacts:
    from calyx.shared.protocol.identity import software_version

    setup = store.get_json(SETUP) if store.has(SETUP) else None
    return AuditFacts(
        kind="audit" if setup else "report",
        calyx=setup["calyx"] if setup else software_version(),
        finished_at=setup["finished_at"] if setup else None,
        seconds=setup["seconds"] if setup else None,
        steps=tuple(Step.model_validate(step) for step in setup["steps"]) if setup else (),
        evidence_head=store.head,
        evidence_lines=store.count,
        earlier_audits=tuple(store.earlier),
        run_head=run_head(store),
        number=len(store.earlier) + 1 if setup else 0,
        standing=_STANDING,
    )
