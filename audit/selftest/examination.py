"""A small run, audited in every way: what the whole auditor says against it."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from calyx.audit.attacks.canaries import record as record_canaries
from calyx.audit.attacks.noise import noise
from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.findings.measured import canaries as canary_finding
from calyx.audit.findings.measured import noise as noise_finding
from calyx.audit.findings.measured.canaries import CanarySection
from calyx.audit.findings.measured.client_canaries import ClientCanarySection
from calyx.audit.findings.promised import agreement, sampling
from calyx.audit.findings.promised.least_epsilon import is_below, least_of
from calyx.audit.finished_run import AuditedRun
from calyx.audit.progress import untold
from calyx.shared.errors import ModelError, RoundError
from calyx.shared.models import build_model
from calyx.shared.models.per_record.private import check_private
from calyx.shared.privacy.accounting import spent
from calyx.shared.record_spec import RecordSpec
from calyx.simulations import run as simulate
from calyx.simulations.run_folder import RunFolder

CANARIES = 200


def examine(settings: tuple[str, ...], seed: int) -> tuple[str, ...]:
    """Carry out one run, audit it in every way, and name what is flagged."""
    with tempfile.TemporaryDirectory(prefix="calyx-mutant-") as name:
        folder = Path(name) / "run"
        try:
            simulate(settings=settings, seed=seed, out=folder, workers=1)
            store = _attacked(folder)
        except RoundError:
            return ("the server stopped the run, whose rounds were lost",)
        audited = AuditedRun(folder)
        flags: list[str] = []
        found = canary_finding.found(audited, store)
        if isinstance(found, CanarySection):
            flags += _records_flags(found)
        elif found is not None:
            flags += _clients_flags(found)
        by_itself = noise_finding.find(audited, store)
        if by_itself is not None and by_itself.violated:
            flags.append("the noise by itself, or rounding, is not what the plan says")
        if _is_impossible(audited):
            flags.append("epsilon is less than the noise leaves")
        if sampling.find(audited, store).verdict in ("not as assumed", "not measured"):
            flags.append("sampling is not as assumed")
        if not agreement.find(audited, store).agrees:
            flags.append("ledgers, configuration and journal disagree")
        if (fault := _model_fault(audited)) is not None:
            flags.append(fault)
        return tuple(flags)


def _attacked(folder: Path) -> EvidenceStore:
    """Evidence of all attacks that measure the mechanism."""
    store, privacy = EvidenceStore.anew(folder), RunFolder(folder).stored_config().privacy
    if (privacy.unit, privacy.noise) != ("client", "local"):
        record_canaries.run(RunFolder(folder), store, untold, canaries=CANARIES, workers=1)
    if privacy.noise != "central":
        noise.run(RunFolder(folder), store, untold, workers=1)
    return store


def _is_impossible(audited: AuditedRun) -> bool:
    delta, unit = audited.config.privacy.delta, audited.config.privacy.unit
    events = [ledger.events for ledger in audited.ledgers]
    told = max(spent(own, delta, unit).epsilon for own in events)
    return is_below(told, least_of(events, delta, unit))


def _records_flags(found: CanarySection) -> list[str]:
    flags = []
    if any(o.proven > (found.guarantee or math.inf) for o in found.observers):
        flags.append("canaries show more than is guaranteed")
    if any(observer.noise.too_little for observer in found.observers):
        flags.append("too little noise")
    if not all(observer.signal.as_planned for observer in found.observers):
        flags.append("canaries do not weigh one clip norm")
    if not found.sums.agree:
        flags.append("sums of clipped gradients are others when computed again")
    if found.remainder is not None and not found.remainder.as_planned:
        flags.append("what remains of the sums is not the planned noise")
    return flags


def _clients_flags(found: ClientCanarySection) -> list[str]:
    flags = []
    if found.remainder is not None and not found.remainder.as_planned:
        flags.append("what remains of the releases is not the planned noise")
    if found.violated and not flags:
        flags.append("canary clients show more than is guaranteed")
    return flags


def _model_fault(audited: AuditedRun) -> str | None:
    """Checked again by the auditor: the trainer's own check may be what is broken."""
    config = audited.config
    try:
        check_private(build_model(config.model, RecordSpec.floats((1, 8, 8)), 10, config.seed))
    except ModelError:
        return "the model mixes records"
    return None
