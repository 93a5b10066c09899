"""The run again, with the same configuration and code, under observation.

An audit cannot ask a finished run what crossed its wires. So it repeats the run in a temporary
folder: the same data, partition, plan, server, clients and key authority, on the local engine. What
an observer sees is captured where that observer stands: at the server's boundary
(`calyx.simulations.engines.grid.Tap`) and at the key authority's answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calyx.server.state.journal import FILE_NAME as JOURNAL
from calyx.server.state.journal import Event
from calyx.shared.config import Config
from calyx.shared.encryption import SealingParameters
from calyx.shared.protocol.authority.interface import (
    Authority,
    Head,
    Opening,
    Released,
    ReleaseRequest,
)
from calyx.simulations.engines.engine import run_local
from calyx.simulations.engines.grid import Tap
from calyx.simulations.engines.simulation import Simulation
from calyx.simulations.follower import JournalFollower
from calyx.simulations.run import assemble, partition_of
from calyx.simulations.run_folder import RunFolder
from calyx.simulations.scratch import scratch_folder

OnRelease = Callable[[ReleaseRequest, Sequence[bytes], Released], None]


class ObservedAuthority:
    """The real key authority; an observer sees its requests and its answers."""

    def __init__(self, authority: Authority, on_release: OnRelease) -> None:
        self._authority, self._on_release = authority, on_release

    def open_run(
        self,
        run: str,
        parameters: SealingParameters,
        min_contributors: int,
        contributors: Sequence[str],
        plan_digest: str,
        config_digest: str,
        known_head: Head | None = None,
    ) -> Opening:
        """See `Authority`."""
        return self._authority.open_run(
            run, parameters, min_contributors, contributors, plan_digest, config_digest, known_head
        )

    def release(self, request: ReleaseRequest, chunks: Sequence[bytes]) -> Released:
        """See `Authority`."""
        released = self._authority.release(request, chunks)
        self._on_release(request, chunks, released)
        return released

    def close_run(self, run: str) -> None:
        """See `Authority`."""
        self._authority.close_run(run)

    def health(self) -> bool:
        """See `Authority`."""
        return self._authority.health()


@dataclass(frozen=True)
class Observers:
    """What to observe, and what the clients get in addition.

    Attributes:
        tap: sees the messages at the server's boundary.
        on_release: sees releases of sealed sums.
        client_settings: further node settings of every client, such as its canaries.
        on_round: receives the number of each finished round.
    """

    tap: Tap | None = None
    on_release: OnRelease | None = None
    client_settings: dict[str, str] | None = None
    on_round: Callable[[int], None] | None = None


@contextmanager
def replayed_run(
    config: Config,
    observers: Observers,
    *,
    workers: int | None = None,
    partition: Sequence[NDArray[np.int64]] | None = None,
) -> Iterator[RunFolder]:
    """Repeat a run and give its folder, which is deleted afterwards.

    Args:
        config: the run's; with fewer rounds if only the messages matter.
        observers: see `Observers`.
        workers: client processes.
        partition: record indices of every client, if not the run's own.

    Raises:
        CalyxError: the run failed.
    """
    with scratch_folder("calyx-audit-") as scratch, ExitStack() as stack:
        folder = RunFolder(scratch / "run")
        folder.prepare(config, list(partition or partition_of(config)))
        simulation, number = assemble(config, folder, "local", workers, stack)
        simulation = _observed(simulation, observers)
        if observers.on_round is not None:
            told = observers.on_round

            def on_event(event: Event) -> None:
                if event["event"] == "round":
                    told(int(event["round"]))

            stack.enter_context(JournalFollower(folder.path / JOURNAL, on_event))
        run_local(simulation, number)
        yield folder


def _observed(simulation: Simulation, observers: Observers) -> Simulation:
    authority = simulation.authority
    if authority is not None and observers.on_release is not None:
        authority = ObservedAuthority(authority, observers.on_release)
    further = observers.client_settings or {}
    clients = {number: {**own, **further} for number, own in simulation.clients.items()}
    return replace(simulation, authority=authority, clients=clients, tap=observers.tap)
