"""A finished run as the audit reads it: configuration, journal, ledgers, plans, batch logs.

Everything comes from the run folder; no training data are read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calyx.client.instrumentation.batch_log import LoggedBatches, read_batches
from calyx.client.ledger.ledger import Entry, Ledger
from calyx.server.roster import Member
from calyx.server.round.plans import Plans
from calyx.server.state.journal import Event, RunEvents, clients_metrics, metrics_of
from calyx.server.state.outcome import rounds_with_effect
from calyx.shared.config import Config
from calyx.shared.data.sources.npz import arrays_of
from calyx.shared.encryption import SealingParameters
from calyx.shared.errors import (
    ConfigError,
    DataError,
    EvidenceError,
    RunError,
    UsageError,
    hint_of,
)
from calyx.shared.host.regular_file import MOST_BYTES, read_regular
from calyx.shared.metric_facts import MetricFacts
from calyx.shared.privacy.event import PrivacyEvent
from calyx.shared.privacy.plan import PrivacyPlan, draft_plan
from calyx.shared.privacy.skellam_mechanism import SkellamMechanism
from calyx.shared.protocol.sealed.messages import sealing_parameters
from calyx.simulations.run_folder import RunFolder


@dataclass(frozen=True)
class ClientLedger:
    """What one client's ledger holds.

    Attributes:
        client: number of the client.
        data_fingerprint: SHA-256 over its records, hex.
        head: hash of the last entry, hex.
        entries: all charges, including those of other runs on the same data, oldest first.
    """

    client: int
    data_fingerprint: str
    head: str
    entries: tuple[Entry, ...]

    @property
    def events(self) -> tuple[PrivacyEvent, ...]:
        """What was charged."""
        return tuple(entry.event for entry in self.entries)


class AuditedRun(RunFolder):
    """The folder of a finished simulation, read and checked.

    Args:
        path: the run folder.

    Raises:
        UsageError: it is not a run, is a deployment's run, or is not finished.
        EvidenceError: a file of it is missing or damaged.
        LedgerError: a ledger was altered.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if not self.path.is_dir():
            raise UsageError(f"there is no folder {path}", hint="name the folder of a run")
        if not self.exists:
            raise UsageError(
                f"{path} is not a run folder: it has no config.toml",
                hint="name the folder that calyx simulate shows at its end",
            )
        if (self.path / "submission.json").exists() or not self.partition_path.exists():
            raise UsageError(
                f"{path} is the run of a deployment: its ledgers are on the devices, so nothing "
                "can be recomputed here",
                hint="audit a simulation with the same configuration",
            )
        self.config: Config = self._config()
        self.environment: Event = self._json("environment.json")
        told = self.told()
        self.start, self.rounds, self.end = told.start, told.rounds, told.end
        self.judged_by = self._judged_by(told)
        self._check_finished(path)
        self.ledgers: tuple[ClientLedger, ...] = tuple(
            self._ledger(number) for number in range(self.config.federation.clients)
        )

    @property
    def name(self) -> str:
        """The run's name in the ledgers, wherever its folder was moved to."""
        return self.run

    @property
    def rounds_with_effect(self) -> int:
        """Rounds that changed the model."""
        return rounds_with_effect(self.rounds)

    @property
    def record_counts(self) -> tuple[int, ...]:
        """Records of each client."""
        return tuple(len(indices) for indices in self.partition)

    @cached_property
    def partition(self) -> tuple[NDArray[np.int64], ...]:
        """Record indices of each client."""
        try:
            arrays = arrays_of(read_regular(self.partition_path, self.path), MOST_BYTES)
            clients = range(self.config.federation.clients)
            return tuple(np.atleast_1d(arrays[f"client-{number}"]) for number in clients)
        except (OSError, KeyError, TypeError, DataError) as error:
            raise EvidenceError(
                f"{self.partition_path} cannot be read: {error}",
                hint="restore it from a copy",
            ) from None

    @cached_property
    def plans(self) -> tuple[PrivacyPlan, ...]:
        """What the configuration requires of each client: its plan, except that the noise is 0.

        The ledgers say how much noise there was.
        """
        counts = self.record_counts
        each = [max(counts)] * len(counts) if self.config.has_common_plan else counts
        return tuple(draft_plan(self.config, records) for records in each)

    @cached_property
    def planned_anew(self) -> tuple[PrivacyPlan, ...]:
        """Each client's whole plan, made again from the configuration as the server makes it.

        Raises:
            CalyxError: the configuration leads to no plan.
        """
        members = [Member(str(i), records) for i, records in enumerate(self.record_counts)]
        plans = Plans(self.config, members, self.dimension)
        return tuple(plans.of(member) for member in members)

    @property
    def is_sealed(self) -> bool:
        """Whether single updates were encrypted."""
        return self.config.is_sealed

    @cached_property
    def mechanism(self) -> SkellamMechanism | None:
        """Grid and noise of sealed sums, as the ledgers say; None where there are none."""
        events = (event for ledger in self.ledgers for event in self.own_events(ledger))
        return next((event.skellam for event in events if event.skellam is not None), None)

    def own_events(self, ledger: ClientLedger) -> list[PrivacyEvent]:
        """What this run charged to a ledger that may also hold other runs."""
        return [entry.event for entry in ledger.entries if entry.run == self.name]

    @property
    def dimension(self) -> int:
        """Entries of the vector that is trained."""
        return self.mechanism.dimension if self.mechanism else int(self.start["parameters"])

    @cached_property
    def sealing(self) -> SealingParameters | None:
        """How updates were packed and encrypted; None where they were not."""
        if not self.is_sealed:
            return None
        plan = replace(self.plans[0], mechanism=self.mechanism)
        return sealing_parameters(self.config, plan, self.dimension)

    def batches(self, client: int) -> LoggedBatches | None:
        """The batches of one client; None if none were written down.

        Raises:
            EvidenceError: the log is damaged.
        """
        path = self.batches_path(client)
        if not path.exists() or not path.stat().st_size:
            return None
        try:
            return read_batches(path, self.path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EvidenceError(
                f"batch log {path} cannot be read: {error}",
                hint="restore it from a copy",
            ) from None

    def _config(self) -> Config:
        try:
            return self.stored_config()
        except (OSError, UnicodeDecodeError, ConfigError) as error:
            raise EvidenceError(
                f"{self.config_path} cannot be read: {error}",
                hint=hint_of(error),
            ) from None

    def _judged_by(self, told: RunEvents) -> tuple[MetricFacts, ...]:
        """The metrics of the run's task, the headline first; what rounds tell of them is sound."""
        try:
            for event in told.rounds:
                metrics_of(event), clients_metrics(event)
            return told.judged_by
        except RunError as error:
            raise EvidenceError(str(error), hint="restore the journal from a copy") from None

    def _check_finished(self, path: Path) -> None:
        done, wanted = len(self.rounds), self.config.training.rounds
        if self.start and self.end and done == wanted:
            return
        raise UsageError(
            f"the run in {path} is not finished ({done} of {wanted} rounds)",
            hint=f"continue it with: calyx simulate --resume --out {path}",
        )

    def _ledger(self, client: int) -> ClientLedger:
        path = self.ledger_path(client)
        if not path.exists():
            raise EvidenceError(
                f"the ledger of client {client} is missing ({path}); without it what was spent "
                "cannot be computed, so there is no report",
                hint="restore it from a copy",
            )
        with Ledger.inspect(path, self.path) as ledger:
            ledger.verify()
            return ClientLedger(client, ledger.data_fingerprint, ledger.head_hash, ledger.entries())

    def told(self) -> RunEvents:
        """What the run has told.

        Raises:
            EvidenceError: its journal cannot be read.
        """
        try:
            return super().told()
        except RunError as error:
            raise EvidenceError(str(error), hint=error.hint) from None

    def _json(self, name: str) -> Event:
        path = self.path / name
        try:
            found: Event = json.loads(read_regular(path, self.path))
        except (OSError, ValueError, RecursionError) as error:
            raise EvidenceError(
                f"{path} cannot be read: {error}",
                hint="restore it from a copy",
            ) from None
        return found
