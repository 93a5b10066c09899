"""Audit a run: attacks, then evidence, then findings, then ``report.json`` and ``report.html``.

>>> done = audit_run(run_dir, skip=["membership"], progress=lambda what, share: None)
>>> done.report.guarantee.epsilon, done.html_path

Each attack puts what it saw into the chain of evidence; the report is made from run folder and
evidence alone, so `calyx.audit.verify` can make it again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from calyx.audit.attacks import evaluation, party_views, replay, unprotected
from calyx.audit.attacks.canaries import record as record_canaries
from calyx.audit.attacks.inversion import scenarios
from calyx.audit.attacks.membership import shadows
from calyx.audit.attacks.noise import noise
from calyx.audit.evidence.store import OF_EVERY_REPORT, EvidenceStore
from calyx.audit.finished_run import AuditedRun
from calyx.audit.progress import Progress
from calyx.audit.report.build import SETUP, build
from calyx.audit.report.html import to_html
from calyx.audit.report.schema import Report, Step
from calyx.shared.errors import CalyxError, EvidenceError, LedgerError, RunError, UsageError
from calyx.shared.host.atomic_write import write_atomically
from calyx.shared.protocol.identity import software_version
from calyx.simulations.claim import owned
from calyx.simulations.run_folder import RunFolder

Attack = Callable[[RunFolder, EvidenceStore, Progress], None]

JSON_NAME, HTML_NAME = "report.json", "report.html"
# In the order in which they are run. A name is what --skip and --only take.
ATTACKS: dict[str, Attack] = {
    "replay": replay.run,
    "unprotected": unprotected.run,
    "canaries": record_canaries.run,
    "noise": noise.run,
    "membership": shadows.run,
    "inversion": scenarios.run,
    "views": party_views.run,
}


@dataclass(frozen=True)
class Reported:
    """A report and where it was written."""

    report: Report
    html_path: Path
    json_path: Path


def audit_run(
    run_dir: str | os.PathLike[str],
    *,
    skip: Collection[str] = (),
    only: Collection[str] = (),
    progress: Progress,
) -> Reported:
    """Attack a finished run, keep the evidence and write the whole report.

    Args:
        run_dir: folder of a finished simulation.
        skip: attacks to leave out.
        only: attacks to run; all if empty.
        progress: receives what is being done and the share of it that is done.

    Raises:
        UsageError: an attack of that name does not exist, the folder holds no finished run, or
            another process is writing to it.
        CalyxError: the run or its evidence is damaged. (An attack that fails is left out, and
            the report says why.)
    """
    chosen = _chosen(skip, only)
    path = Path(run_dir)
    with _held(path):
        return _audit(AuditedRun(path), chosen, progress)


def _audit(run: AuditedRun, chosen: Collection[str], progress: Progress) -> Reported:
    # Nothing in the folder is reused, not even what every report makes: whichever party supplied
    # the folder may have written it, including which code the auditor works with.
    store = EvidenceStore.anew(run.path)
    started = time.monotonic()
    steps = [_step("evaluation", evaluation.run, run, store, progress)]
    for name, attack in ATTACKS.items():
        if name in chosen:
            steps.append(_step(name, attack, run, store, progress))
        else:
            steps.append(Step(name=name, done=False, seconds=None, reason="left out on request"))
    store.put_json(
        SETUP,
        {
            "calyx": software_version(),
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - started, 1),
            "steps": [step.model_dump(mode="json") for step in steps],
        },
    )
    # If the run changed meanwhile, the evidence would be about something else.
    store.check_run()
    progress("report", 0.0)
    return _write(run, store)


def report_run(run_dir: str | os.PathLike[str]) -> Reported:
    """Write the report of a finished run from what is there, without any attack.

    Evidence of an earlier audit is used.

    Raises:
        UsageError: the folder holds no finished run, or another process is writing to it.
        EvidenceError: the run was changed since its evidence was gathered.
    """
    path = Path(run_dir)
    with _held(path):
        run = AuditedRun(path)
        store = EvidenceStore(run.path)
        store.check()
        return _cheaply(run, store)


def report_new_run(run_dir: str | os.PathLike[str]) -> Reported:
    """Write the report of a run that has just ended; evidence about its past is put aside."""
    path = Path(run_dir)
    with _held(path):
        run = AuditedRun(path)
        return _cheaply(run, _new_evidence(run.path))


def _held(run_dir: Path) -> AbstractContextManager[None]:
    """Keep runs and other audits out of a run's folder; `AuditedRun` rejects what is not a run."""
    return owned(run_dir) if RunFolder(run_dir).exists else nullcontext()


def _cheaply(run: AuditedRun, store: EvidenceStore) -> Reported:
    if not store.has(evaluation.NAME) and not store.has(SETUP):
        # Without the test records the report lacks accuracy by class, and says so.
        _step(evaluation.NAME, evaluation.run, run, store, lambda _what, _share: None)
    return _write(run, store)


def _new_evidence(run_dir: Path) -> EvidenceStore:
    """Evidence without an audit: what a report left, if it still fits the run, or a new chain."""
    if (run_dir / "audit" / "evidence").exists():
        try:
            store = EvidenceStore.existing(run_dir)
            store.check()
        except EvidenceError:
            return EvidenceStore.anew(run_dir)
        return store if OF_EVERY_REPORT.issuperset(store.names()) else EvidenceStore.anew(run_dir)
    return EvidenceStore(run_dir)


def _chosen(skip: Collection[str], only: Collection[str]) -> list[str]:
    unknown = [name for name in (*skip, *only) if name not in ATTACKS]
    if unknown:
        raise UsageError(
            f"there is no attack {unknown[0]!r}",
            hint=f"choose from {', '.join(ATTACKS)}",
        )
    return [name for name in ATTACKS if name not in skip and (not only or name in only)]


def _step(
    name: str, attack: Attack, run: AuditedRun, store: EvidenceStore, progress: Progress
) -> Step:
    """Run one attack; one that fails or does not fit this run is left out, with its reason."""
    started = time.monotonic()
    progress(name, 0.0)
    try:
        attack(run, store, progress)
    except (EvidenceError, LedgerError):
        raise
    except CalyxError as error:
        # The others' evidence is worth having; the report says what failed.
        return Step(name=name, done=False, seconds=None, reason=error.full_text)
    progress(name, 1.0)
    return Step(name=name, done=True, seconds=round(time.monotonic() - started, 1), reason="")


def _write(run: AuditedRun, store: EvidenceStore) -> Reported:
    report = build(run, store)
    directory = run.path / "audit"
    json_path, html_path = directory / JSON_NAME, directory / HTML_NAME
    try:
        write_atomically(html_path, to_html(report).encode())
        write_atomically(json_path, report.to_json().encode())
    except OSError as error:
        raise RunError(
            f"the report cannot be written to {directory}: {error.strerror}",
            hint="check the folder's permissions and free space",
        ) from None
    return Reported(report, html_path, json_path)


def lower_bounds_by_method(report: Report) -> dict[str, float]:
    """The bounds of the observer who knows most, by method; an estimate is no bound.

    The observer was fixed with the attack, so nothing is selected by its result.
    """
    found = report.lower_bounds
    return {bound.method: bound.epsilon for bound in found if bound.kind != "estimate"}
