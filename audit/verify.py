"""Is a report what its evidence says? Everything is computed again, without any training data.

What is checked:

1. the chain of evidence, the hash of every piece, and the hash of every file of the run and the
   heads of its ledgers, which the chain's first line binds;
2. each ledger's own chain;
3. that everything that had to be committed to before round 1 was;
4. ``report.json``, byte by byte: it is made again from run folder and evidence;
5. ``report.html`` beside it, byte by byte, made again from the report;
6. every word of a witness beside the report, and that the folder has all audits that the word
   counts.

It finds everything that was changed after the audit. It cannot find an audit that was invented as a
whole: anyone who can write to the run folder can make another run. Name the key of a witness, and a
head that the witness did not sign is an error (`calyx.audit.evidence.witnesses`).
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from calyx.audit.evidence.hash_chain import AUDIT_AGAIN
from calyx.audit.evidence.store import OF_EVERY_REPORT, EvidenceStore
from calyx.audit.evidence.witnesses import Witness, examine
from calyx.audit.findings.measured.canaries import CanarySection
from calyx.audit.finished_run import AuditedRun
from calyx.audit.report.build import SETUP, build
from calyx.audit.report.html import to_html
from calyx.audit.report.schema import Report
from calyx.audit.run import HTML_NAME, JSON_NAME
from calyx.shared.errors import EvidenceError, UsageError
from calyx.shared.host.regular_file import read_regular


@dataclass(frozen=True)
class Verified:
    """What was found to be in order.

    Attributes:
        report: the report, as computed again.
        pieces: pieces of evidence.
        files: files of the run that the evidence binds.
        ledgers: ledgers whose chains were followed.
        html: whether the page was compared too.
        head: hash of the last line of the chain.
        witnesses: who else keeps the head.
        seconds: duration of the check.
    """

    report: Report
    pieces: int
    files: int
    ledgers: int
    html: bool
    head: str
    witnesses: tuple[Witness, ...]
    seconds: float


def verify(
    path: str | os.PathLike[str],
    *,
    authority_key: bytes | None = None,
    tsa_ca: str | os.PathLike[str] | None = None,
) -> Verified:
    """Check a report against its run folder.

    Args:
        path: ``report.json`` in its place, or the run folder.
        authority_key: Ed25519 key of a witness that must have signed the head, 32 bytes.
        tsa_ca: certificates of a time-stamping authority that must have stamped it, PEM.

    Raises:
        UsageError: there is no report there.
        EvidenceError: something is not as it was, naming the first such thing.
    """
    started = time.monotonic()
    json_path, run_dir = _place(Path(path))
    stored = _read(json_path, run_dir)
    store = EvidenceStore.existing(run_dir)
    store.check()
    run = AuditedRun(run_dir)
    report = build(run, store)
    if report.to_json().encode() != stored:
        was_broken_off = not store.has(SETUP) and not OF_EVERY_REPORT.issuperset(store.names())
        if was_broken_off:
            raise EvidenceError(
                f"{json_path} is older than its evidence, which is of an audit that was broken off",
                hint=f"{AUDIT_AGAIN} {run_dir}",
            )
        raise EvidenceError(
            f"{json_path} is not what its evidence gives{_first_difference(report, stored)}",
            hint=f"make it again with: calyx report {run_dir}",
        )
    canaries = report.canaries
    if isinstance(canaries, CanarySection) and not canaries.committed_before_round_1:
        raise EvidenceError(
            f"{json_path}: the coins of the canaries were not committed to before round 1, so the "
            "bounds prove nothing",
            hint=f"audit the run again with: calyx audit run {run_dir}",
        )
    html_path = json_path.with_name(HTML_NAME)
    if html_path.exists() and _read(html_path, run_dir) != to_html(report).encode():
        raise EvidenceError(
            f"{html_path} is not the page that {json_path.name} gives with the versions installed "
            "here",
            hint=f"make it again with: calyx report {run_dir}",
        )
    return Verified(
        report=report,
        pieces=len(store.names()),
        files=len(store.binds["files"]),
        ledgers=len(store.binds["ledgers"]),
        html=html_path.exists(),
        head=store.head,
        witnesses=examine(run_dir, store, authority_key, None if tsa_ca is None else Path(tsa_ca)),
        seconds=time.monotonic() - started,
    )


def _place(path: Path) -> tuple[Path, Path]:
    """The report and the run folder it lies in."""
    json_path = (path / "audit" / JSON_NAME if path.is_dir() else path).absolute()
    if not json_path.is_file():
        raise UsageError(
            f"there is no report at {json_path}",
            hint="make one with: calyx audit run RUN_DIR",
        )
    if json_path.name != JSON_NAME or json_path.parent.name != "audit":
        raise UsageError(
            f"{json_path} is not in a run folder",
            hint=f"verify RUN_DIR/audit/{JSON_NAME}, beside its evidence",
        )
    return json_path, json_path.parent.parent


def _read(path: Path, run_dir: Path) -> bytes:
    try:
        return read_regular(path, run_dir)
    except OSError as error:
        raise EvidenceError(f"{path} cannot be read: {error}", hint="check the path") from None


def _first_difference(report: Report, stored: bytes) -> str:
    ours = report.to_json().splitlines()
    theirs = stored.decode("utf-8", errors="replace").splitlines()
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=False), 1):
        if mine != other:
            return f" (line {number}: {other.strip()[:60]} instead of {mine.strip()[:60]})"
    return " (its length differs)"
