"""Where this machine carries out a run, and with which devices."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from calyx.shared.host.node_settings import NodeSetting, NodeSettings, Scalar

_ALL, _SIMULATION, _DEPLOYMENT = "server", "server of a simulation", "server of real devices"

SETTINGS = (
    NodeSetting("run", _ALL, "name of the run, as it appears in ledgers; by default Flower's id"),
    NodeSetting("run-dir", _ALL, "the run folder; by default `runs/` and that name"),
    NodeSetting("engine", _ALL, "name of the runtime, for the record"),
    NodeSetting("workers", _ALL, "number of client processes, for the record"),
    NodeSetting("simulation-seed", _SIMULATION, "seed of central noise; without it, the system's"),
    NodeSetting("device-names", _DEPLOYMENT, "JSON: who each of Flower's node ids was approved as"),
    NodeSetting(
        "record-limits", _DEPLOYMENT, "JSON: how many records each device may declare, by name"
    ),
)
"""Every node setting that a server reads."""


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

    @classmethod
    def read(cls, node_config: Mapping[str, Scalar], run_id: int) -> RunSettings:
        """Read Flower's ``node_config``; settings hold no mappings, so these come as JSON.

        Args:
            node_config: of the server's machine.
            run_id: Flower's number of the run, used as its name where none is given.

        Raises:
            ConfigError: a setting that does not exist.
        """
        own = NodeSettings(node_config, SETTINGS)
        run = own.text("run", str(run_id))
        names, limits = own.text("device-names"), own.text("record-limits")
        return cls(
            run=run,
            run_dir=Path(own.text("run-dir", str(Path("runs") / run))),
            engine=own.text("engine", "deployment"),
            workers=own.number("workers") or 0,
            simulation_seed=own.number("simulation-seed"),
            device_names={int(k): str(v) for k, v in json.loads(names).items()} if names else None,
            record_limits=json.loads(limits) if limits else None,
        )
