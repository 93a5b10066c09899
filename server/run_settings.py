"""Where and for whom this machine carries a run out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunSettings:
    """Settings of the machine the server runs on; never sent to clients.

    Attributes:
        run: identifier of the run, as it appears in the clients' ledgers.
        run_dir: the run folder.
        engine: name of the runtime, for the record.
        workers: client processes, for the record.
        simulation_seed: seed of central noise in a simulation; None for system entropy.
        device_names: in a deployment, who each of Flower's nodes was approved as.
        record_limits: in a deployment, how many records each device may declare, by name.
    """

    run: str
    run_dir: Path
    engine: str
    workers: int
    simulation_seed: int | None = None
    device_names: Mapping[int, str] | None = None
    record_limits: Mapping[str, int] | None = None
