"""Several runs on one page: the metric of their task against epsilon.

Each run's figures are computed again from its folder, as for its own report.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.finished_run import AuditedRun
from calyx.audit.report.build import build
from calyx.audit.report.comparison import Comparison, compared
from calyx.audit.report.html import comparison_to_html
from calyx.shared.errors import RunError, UsageError
from calyx.shared.host.atomic_write import write_atomically


def compare(run_dirs: Sequence[str | os.PathLike[str]]) -> Comparison:
    """Put runs side by side.

    Raises:
        UsageError: fewer than two runs, or a folder that holds no finished run.
        CalyxError: a run or its evidence is damaged.
    """
    if len(run_dirs) < 2:
        raise UsageError("a comparison needs at least two runs", hint="name their folders")
    reports = []
    for run_dir in run_dirs:
        run = AuditedRun(Path(run_dir))
        store = EvidenceStore(run.path)
        store.check()
        reports.append(build(run, store))
    return compared(reports)


def write_comparison(comparison: Comparison, path: str | os.PathLike[str]) -> None:
    """Write the page.

    Raises:
        RunError: it cannot be written.
    """
    try:
        write_atomically(Path(path), comparison_to_html(comparison).encode())
    except OSError as error:
        raise RunError(
            f"{path} cannot be written: {error.strerror}",
            hint="name another file with --out",
        ) from None
