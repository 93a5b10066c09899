"""The folder of a device: what its owner set up, and what must never be lost.

::

    DIR/                  0700
      device.toml         name, server, data, the pinned keys; written by `enrolment`
      policy.toml         the owner's limits, for the owner to edit (`calyx.client.policy`)
      ca.pem              the server's CA, pinned
      node.key            P-384 key that the server knows this device by, 0600
      contributor.key     keys for sealed sums, 0600              (`calyx.client.sealing.identity`)
      request.json        enrolment request, for the operators
      ledger.sqlite       what was spent on this device's records (`calyx.client.ledger.ledger`)
      admissions/         public keys of sealed runs it was admitted to
      logs/client.log     rotated
      instructions.last   number of the last message of the server that was obeyed
      status.json         what it is doing; true only while it runs
      lock                held by the process that runs it

Everything a round needs comes from here, nothing of it from a server.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from calyx.client.records import CLASSIFICATION, OwnRecords
from calyx.shared.config.load import Scalar
from calyx.shared.config.schema import FAULTS, TaskKind
from calyx.shared.errors import ConfigError, EnrolmentError
from calyx.shared.host.address import checked_address
from calyx.shared.host.served_folder import ServedFolder
from calyx.shared.host.settings_file import read_settings

DataSource = Literal["idx", "npz", "python", "table", "images", "audio", "sensors", "text", "task"]
NodeSettings = dict[str, str | int | float | bool]
# Weights of 64 million parameters; reading a message takes up to about three times its size.
DEFAULT_MESSAGE_BYTES = 256 * 2**20


class DataPlace(BaseModel):
    """``[data]``: where this device's own records are, and how they are read.

    Attributes:
        source: format of the files, ``task`` for what the owner's own task reads, or ``python`` for
            a function of his own.
        place: the folder, file or archive, or ``module:function``.
        python_path: folder with the modules of function and task, if they are not installed.
        task: what is learned from the records, as ``task.kind``.
        settings: the keys of a run's ``[data]`` by which they are read; see
            `calyx.shared.config.reading_keys`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: DataSource
    place: str = Field(min_length=1)
    python_path: str = ""
    task: TaskKind = CLASSIFICATION
    settings: dict[str, Scalar] = {}

    @model_validator(mode="after")
    def _can_be_read(self) -> DataPlace:
        if self.source == "python":
            if self.settings:
                raise ValueError("a function reads no settings; leave [data.settings] out")
            return self
        try:
            _ = self.records.config
        except ConfigError as error:
            raise PydanticCustomError(
                FAULTS, "records cannot be read so", {"faults": error.faults}
            ) from None
        return self

    @property
    def records(self) -> OwnRecords:
        """What reads them."""
        written = json.dumps(self.settings, sort_keys=True) if self.settings else ""
        return OwnRecords(self.source, self.place, written, self.task)


class DeviceSettings(BaseModel):
    """``device.toml``.

    Attributes:
        name: the device's name, as enrolled.
        server: host:port of the server.
        server_key: the key that the server signs its messages with, pinned, hex.
        authority_key: the key authority's key, pinned, hex; empty: this device cannot seal.
        max_message_bytes: a larger message of the server is not fetched, bytes.
        data: where its records are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=100)
    server: Annotated[str, AfterValidator(checked_address)]
    server_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    authority_key: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    max_message_bytes: int = Field(DEFAULT_MESSAGE_BYTES, ge=1_000_000)
    data: DataPlace


class Device(ServedFolder):
    """A device's folder.

    Args:
        directory: as made by `calyx.client.deployment.enrolment.enroll`.
    """

    def __init__(self, directory: Path) -> None:
        directory = directory.absolute()
        self.log_path = directory / "logs" / "client.log"
        super().__init__(
            directory,
            taken=f"the device in {directory} is already running",
            hint=f"see: calyx client status {directory}",
            log=self.log_path,
        )
        self.settings_path = self.directory / "device.toml"
        self.policy_path = self.directory / "policy.toml"
        self.ca_path = self.directory / "ca.pem"
        self.node_key_path = self.directory / "node.key"
        self.identity_path = self.directory / "contributor.key"
        self.request_path = self.directory / "request.json"
        self.ledger_path = self.directory / "ledger.sqlite"
        self.sequence_path = self.directory / "instructions.last"
        self.status_path = self.directory / "status.json"

    def settings(self) -> DeviceSettings:
        """What `device.toml` says.

        Raises:
            UsageError: there is no device in this folder.
            ConfigError: the file cannot be used; all faults are listed.
        """
        return read_settings(
            self.settings_path,
            DeviceSettings,
            f"there is no device in {self.directory}",
            "make one with: calyx client enroll DIR",
        )

    def node_settings(self, simulated_noise: int | None = None) -> NodeSettings:
        """The settings that `calyx.client.node.Node` reads.

        Args:
            simulated_noise: seed of noise that protects no one, for comparing a deployment with
                a simulation; None, as on any real device, for the system's entropy.
        """
        settings = self.settings()
        node: NodeSettings = {
            "client-name": settings.name,
            "ledger": str(self.ledger_path),
            "policy": str(self.policy_path),
            "identity": str(self.identity_path),
            "authority-key": settings.authority_key,
            "server-key": settings.server_key,
            "sequence": str(self.sequence_path),
            "data-source": settings.data.source,
            "data-directory": settings.data.place,
            "data-settings": settings.data.records.settings,
            "data-task": settings.data.task,
        }
        if simulated_noise is not None:
            node["simulation-seed"] = simulated_noise
        return node

    def node_key(self) -> ec.EllipticCurvePrivateKey:
        """The key by which the server knows this device.

        Raises:
            EnrolmentError: missing, damaged, or readable by others.
        """
        path = self.node_key_path
        try:
            if path.stat().st_mode & 0o077:
                raise EnrolmentError(f"{path} can be read by others", hint=f"run: chmod 600 {path}")
            key = load_ssh_private_key(path.read_bytes(), None)
        except (OSError, ValueError) as error:
            raise EnrolmentError(
                f"the key {path} cannot be used ({error})",
                hint="enrol this device again in a new folder",
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise EnrolmentError(
                f"{path} is not a key of a device",
                hint="enrol it again in a new folder",
            )
        return key
