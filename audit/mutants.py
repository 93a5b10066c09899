"""Planted faults: would this audit find out if the training were wrong?

Each mutant (`calyx.audit.planted_faults`) replaces functions of the real path for a small run and
its repetitions with canaries, all in one process. The whole auditor then looks at what the run left
behind. A mutant that raises no flag is a fault that the audit would miss; a flag on a clean run is
a false alarm. Nothing in the product reaches this module.

With 20 clean runs the chance of any false alarm is below 4 %: each run is held to `NOISE_LEVEL` 16
times at most, or fewer times and to the sampling tests' `FALSE_ALARM_RATE` of one in a thousand.
"""

from __future__ import annotations

import math
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calyx.audit.attacks import canaries, noise
from calyx.audit.audited_run import AuditedRun
from calyx.audit.evidence import EvidenceStore
from calyx.audit.findings import agreement, sampling
from calyx.audit.findings import canaries as canary_finding
from calyx.audit.findings import noise as noise_finding
from calyx.audit.findings.canaries import CanarySection
from calyx.audit.findings.client_canaries import ClientCanarySection
from calyx.audit.findings.least_epsilon import is_below, least_of
from calyx.audit.planted_faults import MUTANTS
from calyx.audit.planting import ALONE, CLIENTS, SAMPLED, SEALED, planted
from calyx.shared.errors import ModelError, RoundError
from calyx.shared.models import build_model
from calyx.shared.models.private import check_private
from calyx.shared.privacy.accounting import spent
from calyx.simulations import run as simulate
from calyx.simulations.engine import default_workers
from calyx.simulations.run_folder import RunFolder

Progress = Callable[[str, float], None]

CANARIES = 200
CLEAN_RUNS = 20


@dataclass(frozen=True)
class Verdict:
    """What the auditor said of one run; no flag means that nothing was found."""

    name: str
    flags: tuple[str, ...]


@dataclass(frozen=True)
class MutantReport:
    """All verdicts."""

    mutants: tuple[Verdict, ...]
    clean: tuple[Verdict, ...]

    @property
    def caught(self) -> int:
        """Mutants that were found out."""
        return sum(bool(verdict.flags) for verdict in self.mutants)

    @property
    def false_alarms(self) -> int:
        """Clean runs that were flagged."""
        return sum(bool(verdict.flags) for verdict in self.clean)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "caught": self.caught,
            "total": len(self.mutants),
            "false_alarms": self.false_alarms,
            "clean_runs": len(self.clean),
            "mutants": {v.name: list(v.flags) for v in self.mutants},
            "clean": {v.name: list(v.flags) for v in self.clean},
        }


def run(
    *,
    names: tuple[str, ...] | None = None,
    clean_runs: int = CLEAN_RUNS,
    workers: int | None = None,
    progress: Progress = lambda *_: None,
) -> MutantReport:
    """Plant every fault once, and audit clean runs beside them.

    Args:
        names: the mutants to plant; None for all.
        clean_runs: runs without a fault, of another seed each.
        workers: processes that do so; None for one a core, 1 for this one.
        progress: told what is being done, and how much of it is done.
    """
    chosen = [mutant.name for mutant in MUTANTS if names is None or mutant.name in names]
    with _mapping(workers or default_workers(len(chosen) + clean_runs)) as each:
        found = []
        for verdict in each(_plant, chosen):
            found.append(verdict)
            progress("mutants", len(found) / len(chosen))
        clean = []
        for verdict in each(_examine_clean, range(clean_runs)):
            clean.append(verdict)
            progress("clean runs", len(clean) / clean_runs)
    return MutantReport(tuple(found), tuple(clean))


@contextmanager
def _mapping(workers: int) -> Iterator[Callable[..., Iterator[Verdict]]]:
    """`map`, in this process or in others, each of which plants one fault at a time."""
    if workers == 1:
        yield map
        return
    # A fork would share the threads' locks of this process.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield pool.map


def _plant(name: str) -> Verdict:
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    with planted(mutant):
        return Verdict(name, examine(mutant.settings, seed=0))


def _examine_clean(seed: int) -> Verdict:
    settings = (SEALED, SAMPLED, SEALED, CLIENTS, SEALED, SAMPLED, SEALED, ALONE)[seed % 8]
    return Verdict(f"seed {seed}", examine(settings, seed=seed))


def examine(settings: tuple[str, ...], seed: int) -> tuple[str, ...]:
    """Carry out one run, audit it with everything there is, and name what is flagged."""
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
        canaries.run(RunFolder(folder), store, lambda *_: None, canaries=CANARIES, workers=1)
    if privacy.noise != "central":
        noise.run(RunFolder(folder), store, lambda *_: None, workers=1)
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
    """Looked at again by the auditor: the trainer's own check may be what is broken."""
    config = audited.config
    try:
        check_private(build_model(config.model, (1, 8, 8), 10, config.seed))
    except ModelError:
        return "the model mixes records"
    return None
