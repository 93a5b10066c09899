"""Planted faults: would this audit find out if the training were wrong?

Each mutant (`calyx.audit.selftest.planted_faults`) replaces functions of the real path for a small
run and its repetitions with canaries, all in one process. The whole auditor then looks at what the
run left behind. A mutant that raises no flag is a fault that the audit would miss; a flag on a
clean run is a false alarm. Nothing in the product reaches this module.

With 20 clean runs the chance of any false alarm is below 4 %: each run is held to `NOISE_LEVEL` 16
times at most, or fewer times and to the sampling tests' `FALSE_ALARM_RATE` of one in a thousand.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from calyx.audit.progress import Progress, untold
from calyx.audit.selftest.examination import examine
from calyx.audit.selftest.planted_faults import MUTANTS
from calyx.audit.selftest.planting import ALONE, CLIENTS, SAMPLED, SEALED, planted
from calyx.simulations.engines.engine import default_workers

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
        """Mutants that were detected."""
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
    progress: Progress = untold,
) -> MutantReport:
    """Plant every fault once, and audit clean runs beside them.

    Args:
        names: the mutants to plant; None for all.
        clean_runs: runs without a fault, each with its own seed.
        workers: processes to use; None for one per core, 1 for this one.
        progress: receives what is being done and the share of it that is done.
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
    """`map`, in this process or in others that each plant one fault at a time."""
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
