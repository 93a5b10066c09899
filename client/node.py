"""The device a client runs on: its records, its owner's policy, its ledger, its randomness.

Everything here comes from the device's own settings (Flower's ``node_config``), never from the
server: a server must not be able to choose which ledger is charged or which noise is drawn.
`SETTINGS` is the table of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from calyx.client.instrumentation.batch_log import BatchLog
from calyx.client.instrumentation.canaries import Canaries
from calyx.client.instrumentation.hooks import Audit
from calyx.client.ledger.data_registry import DataRegistry
from calyx.client.ledger.ledger import Ledger
from calyx.client.policy import Policy
from calyx.client.records import CLASSIFICATION, OwnRecords
from calyx.client.sealing.sealing import SealingState
from calyx.shared.config import Config
from calyx.shared.config.schema import DataConfig, TaskConfig
from calyx.shared.data import Dataset, load_split
from calyx.shared.errors import DataError, LedgerError, PolicyViolation
from calyx.shared.host.node_settings import NodeSetting, NodeSettings, Scalar
from calyx.shared.privacy.noise import NoiseSource, SeededNoise, SystemNoise, seeded_key
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.protocol.sealed.messages import SealingOffer
from calyx.shared.protocol.signatures.signed import is_hex

_DEVICE, _SIMULATED, _BOTH = "device", "simulated client", "device, simulated client"

SETTINGS = (
    NodeSetting("client-name", _DEVICE, "stable name; a simulated client is known by its number"),
    NodeSetting("ledger", _BOTH, "path of the privacy ledger; required"),
    NodeSetting("policy", _BOTH, "path of the owner's policy; required on a device"),
    NodeSetting(
        "data-source",
        _DEVICE,
        "`npz`, `idx`, `table`, `images`, `audio`, `sensors`, `text`, `task`, or `python` for the "
        "owner's own function",
    ),
    NodeSetting("data-directory", _DEVICE, "folder or file with the records, or `module:function`"),
    NodeSetting(
        "data-settings", _DEVICE, "JSON: keys of `[data]` by which the owner has records read"
    ),
    NodeSetting(
        "data-task", _DEVICE, "what may be learned from them, as `task.kind`; `classification`"
    ),
    NodeSetting("identity", _BOTH, "sealed runs: path of this client's private keys"),
    NodeSetting(
        "authority-key", _BOTH, "sealed runs: the key authority's public key, pinned, in hex"
    ),
    NodeSetting("server-key", _DEVICE, "the key that the server signs with, pinned, in hex"),
    NodeSetting("sequence", _DEVICE, "file with the number of the last message that was obeyed"),
    NodeSetting("partition-id", _SIMULATED, "number of the client"),
    NodeSetting("partition-file", _SIMULATED, "NPZ with the record indices of every client"),
    NodeSetting(
        "simulation-seed",
        _SIMULATED,
        "seed that the noise is derived from. On a device, where it protects no one, only "
        "`calyx client join --simulated-noise` sets it",
    ),
    NodeSetting("batch-log", _SIMULATED, "file in which the batches are written down"),
    NodeSetting("canaries", _SIMULATED, "NPZ with the canary records of an audit"),
)
"""Every node setting that a client reads."""


@dataclass(frozen=True)
class Node:
    """One device's own settings; hashable, so that what they load can be kept between messages.

    Attributes:
        name: stable name of the client.
        partition: its number in a simulation, None on a real device.
        partition_file: record indices of every client; empty on a real device.
        simulation_seed: seed of the simulated noise; None on a real device.
        data_source: format of the device's own records; empty in a simulation.
        data_directory: folder with them, or a function; empty in a simulation.
        data_settings: how they are read, JSON; see `OwnRecords`.
        data_task: what may be learned from them.
        ledger_path: where spent budget is recorded.
        policy_path: the owner's limits; empty only in a simulation.
        identity_path: this client's private keys; only for sealed runs.
        batch_log: where an audited simulation writes its batches; empty means nowhere.
        canaries_file: the canary records of an audited simulation; empty means none.
        authority_key: the pinned public key of the key authority, hex; only for sealed runs.
        server_key: the pinned key that this device's instructions are signed with, hex; empty
            only in a simulation.
        sequence_path: where the number of the last message obeyed is kept.
    """

    name: str
    partition: int | None
    partition_file: str
    simulation_seed: int | None
    data_directory: str
    ledger_path: str
    policy_path: str
    identity_path: str = ""
    authority_key: str = ""
    server_key: str = ""
    sequence_path: str = ""
    data_source: str = ""
    data_settings: str = ""
    data_task: str = CLASSIFICATION
    batch_log: str = ""
    canaries_file: str = ""

    @classmethod
    def from_settings(cls, settings: Mapping[str, Scalar]) -> Node:
        """Read Flower's ``node_config``.

        Raises:
            ConfigError: a setting that does not exist.
            LedgerError: no ledger is named; without one nothing private may start.
            PolicyViolation: a real device without a policy, or with settings of an audit.
        """
        own = NodeSettings(settings, SETTINGS)
        simulated = own.has("simulation-seed")
        if not (ledger := own.text("ledger")):
            raise LedgerError(
                "this client has no ledger",
                hint="name one with the node setting 'ledger'",
            )
        audited = [name for name in ("batch-log", "canaries") if own.has(name)]
        if not simulated and audited:
            raise PolicyViolation(
                "a real device takes part in no audit, but this one has the settings "
                f"{', '.join(audited)}",
                hint="remove them",
            )
        policy = own.text("policy")
        if not simulated and not policy:
            raise PolicyViolation(
                "this device has no policy",
                hint="name one with the node setting 'policy'",
            )
        partition, file = own.number("partition-id"), own.text("partition-file")
        return cls(
            name=own.text("client-name", str(partition) if partition is not None else "client"),
            partition=partition,
            partition_file=file if simulated else "",
            simulation_seed=own.number("simulation-seed"),
            data_directory=own.text("data-directory"),
            ledger_path=ledger,
            policy_path=policy,
            identity_path=own.text("identity"),
            authority_key=own.text("authority-key"),
            server_key=own.text("server-key"),
            sequence_path=own.text("sequence"),
            data_source=own.text("data-source"),
            data_settings=own.text("data-settings"),
            data_task=own.text("data-task", CLASSIFICATION),
            batch_log=own.text("batch-log"),
            canaries_file=own.text("canaries"),
        )

    @property
    def is_simulated(self) -> bool:
        """Whether noise is seeded and may be repeated."""
        return self.simulation_seed is not None

    def records(self, config: Config) -> Dataset:
        """The device's own training records, if the run means them and its task may run here.

        Raises:
            PolicyViolation: see `agree`; nothing was read or imported.
            DataError: they cannot be used.
        """
        if self.partition_file:
            data, task = config.data.model_dump_json(), config.task.model_dump_json()
            return _simulated_records(
                data, task, config.seed, self.partition_file, self.partition or 0
            )
        if not self.data_source:
            # A name that came from the server could be any folder of this device.
            raise DataError(
                "this device does not say where its records are",
                hint="name them with the node settings 'data-source' and 'data-directory'",
            )
        self.agree(config)
        return self._own_records.viewed(config.data.view)

    @property
    def _own_records(self) -> OwnRecords:
        return OwnRecords(self.data_source, self.data_directory, self.data_settings, self.data_task)

    def agree(self, config: Config) -> None:
        """Hold a run against what the owner said of his records and his own code.

        The first thing that is done about a run, since all else may import what the run names.

        Raises:
            PolicyViolation: the run reads these records otherwise or learns something else from
                them, or its task is code that the owner did not agree to; nothing was imported.
        """
        if self.data_source:
            self._own_records.check(config)
        if config.task.is_own and self.policy_path:
            Policy.load(Path(self.policy_path)).admit_task(config)

    def policy(self, plan: PrivacyPlan) -> Policy:
        """The owner's limits; a simulated client without any takes those of its plan."""
        return Policy.load(Path(self.policy_path)) if self.policy_path else Policy.simulation(plan)

    def check_evaluation(self, config: Config) -> None:
        """Refuse an evaluation that the owner's policy does not allow.

        Raises:
            PolicyViolation: exact metrics may not leave, or the model may not run here.
        """
        if self.policy_path:
            Policy.load(Path(self.policy_path)).check_evaluation(config)

    def check_record_count(self, config: Config) -> None:
        """Refuse to say how many records there are if the owner's policy does not allow it.

        Raises:
            PolicyViolation: the run asks for the count, and it may not leave.
        """
        if self.policy_path:
            Policy.load(Path(self.policy_path)).check_record_count(config)

    def accept_offer(self, offer: SealingOffer, config: Config) -> None:
        """Ask the owner's policy about a sealed run, check the offer, and keep it.

        Raises:
            PolicyViolation: naming every limit that is not kept, or terms that are too weak.
            ProtocolError: the authority did not sign it for this client.
        """
        if self.policy_path:
            Policy.load(Path(self.policy_path)).check_offer(config)
        self.agree(config)
        self.sealing().accept(offer, config, self.owners_least_contributors)

    @property
    def owners_least_contributors(self) -> int:
        """The owner's minimum of contributors in a released sum; 0 in a simulation without one."""
        if not self.policy_path:
            return 0
        return Policy.load(Path(self.policy_path)).secure_aggregation.min_contributors

    def sealing(self) -> SealingState:
        """What this client needs to seal.

        Raises:
            PolicyViolation: it has no keys, or no authority that it trusts.
        """
        key = bytes.fromhex(self.authority_key) if is_hex(self.authority_key, 64) else b""
        if not self.identity_path or not key:
            raise PolicyViolation(
                "this client is not enrolled at a key authority and cannot seal",
                hint=(
                    "name its keys and the authority's with the node settings 'identity' and "
                    "'authority-key'"
                ),
            )
        path = Path(self.identity_path)
        return SealingState(path.parent / "admissions", self.name, path, key)

    def ledger(self, records: Dataset) -> Ledger:
        """Open the ledger of these records; the caller closes it.

        A device's ledger belongs to its records as they are stored, however a run reads them: a run
        that reads images as sequences spends the same budget. Two devices with the same records do
        not have two budgets: see `calyx.client.ledger.data_registry`. A simulation claims nothing.
        """
        if self.data_source:
            return self._claimed_ledger()
        return Ledger.open(Path(self.ledger_path), data_fingerprint=records.fingerprint)

    def _claimed_ledger(self) -> Ledger:
        """The only ledger of its records; claimed before it is made, and by its id."""
        own, records = self._own_records, self._own_records.charged()
        registry, path = DataRegistry.of_user(), Path(self.ledger_path)
        registry.claim(records, path, files=own.files)
        ledger = Ledger.open(path, data_fingerprint=records.fingerprint)
        try:
            registry.claim(records, path, files=own.files)
        except BaseException:
            ledger.close()
            raise
        return ledger

    def noise(self, instruction_digest: str) -> NoiseSource:
        """Fresh system noise, or in a simulation noise that only this instruction gets.

        Deriving the seeded key from the whole instruction keeps two different instructions from
        ever sharing noise: their difference would be the gradients without noise.
        """
        if self.simulation_seed is None:
            return SystemNoise()
        return SeededNoise(seeded_key("noise", self.simulation_seed, self.name, instruction_digest))

    def audit(self, server_round: int) -> Audit:
        """What an audited simulation adds to this round; nothing on a real device."""
        log = BatchLog(Path(self.batch_log), server_round) if self.batch_log else None
        canaries = (
            Canaries.load(Path(self.canaries_file), self.partition or 0)
            if self.canaries_file
            else None
        )
        return Audit(log, canaries)

    def order_seed(self, config: Config, server_round: int) -> int:
        """Seed for what is not secret: the order of batches, dropout."""
        key = seeded_key("order", config.seed, self.name, server_round)
        return int.from_bytes(key[:7], "big")


@lru_cache(maxsize=1)
def _training_records(data_json: str, task_json: str, seed: int) -> Dataset:
    """All clients' records; kept, because one process plays many simulated clients."""
    data, task = (
        DataConfig.model_validate_json(data_json),
        TaskConfig.model_validate_json(task_json),
    )
    return load_split(data, seed, task).train


@lru_cache(maxsize=128)
def _simulated_records(
    data_json: str, task_json: str, seed: int, path: str, number: int
) -> Dataset:
    try:
        with np.load(path, allow_pickle=False) as archive:
            indices = np.asarray(archive[f"client-{number}"], dtype=np.int64)
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"client {number} has no usable entry in {path}: {error}") from None
    return _training_records(data_json, task_json, seed).subset(indices)
