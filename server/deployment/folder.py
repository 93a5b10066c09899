"""The folder of a server: certificates, who was approved, runs, state of its processes.

::

    DIR/                 0700
      server.toml        settings; written by `setup`, for the operator to edit
      ca/                ca.pem, ca-key.pem: signs the server's certificate, nothing else
      tls/               server.pem, server-key.pem
      for-devices/       ca.pem, instructions.pub: what a device pins
      instructions.key   signs every message to a device               (`signing`)
      superexec.secret   needed to run a ServerApp here
      flower/            Flower's home: state.db
      authority/         root.pem, server.pem, server-key.pem: from the key authority
      nodes.json         approved devices                    (`enrolment`)
      nginx.conf         a reverse proxy that lets only the Fleet API out
      runs/NAME/         run folders, as a simulation's; submission.json beside them
      logs/              superlink.log, serverapp.log, rotated
      state/             what the processes tell each other; only true while they run
      lock               held by ``calyx server up``
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from calyx.shared.errors import ProtocolError, UsageError
from calyx.shared.host.address import bracketed, checked_address
from calyx.shared.host.served_folder import ServedFolder
from calyx.shared.host.settings_file import read_settings
from calyx.shared.protocol.signatures.signed import check_name

DEFAULT_PORT = 9440
LOOPBACK = "127.0.0.1"
_NAME_BYTES = 255  # of a folder
_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, never bound to


def _address_or_none(text: str) -> str:
    return checked_address(text) if text else text


class ServerSettings(BaseModel):
    """``server.toml``.

    Attributes:
        listen: address to listen on; anything but loopback lets others reach every API.
        port: for devices, operators and the executor alike.
        authority: host:port of the key authority; empty: no sealed runs.
        max_records: records that a device may declare at most, unless it was approved with a
            number of its own. A vote weighs as much as the count, which no one can check.
        max_reply_bytes: a device whose reply is larger, or would become larger, takes no further
            part in the run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: str = LOOPBACK
    port: int = Field(DEFAULT_PORT, ge=1, le=65535)
    authority: Annotated[str, AfterValidator(_address_or_none)] = ""
    max_records: int = Field(100_000, ge=1)
    max_reply_bytes: int = Field(256 * 2**20, ge=1_000_000)


class ServerFolder(ServedFolder):
    """Paths and settings of one server; ``calyx server up`` serves it."""

    def __init__(self, directory: Path) -> None:
        directory = directory.absolute()
        super().__init__(
            directory,
            taken=f"the server in {directory} is already up",
            hint=f"see: calyx server status {directory}",
            log=directory / "logs",
        )
        self.settings_path = self.directory / "server.toml"
        self.ca_dir = self.directory / "ca"
        self.ca_path = self.ca_dir / "ca.pem"
        self.tls_dir = self.directory / "tls"
        self.certificate_path = self.tls_dir / "server.pem"
        self.private_key_path = self.tls_dir / "server-key.pem"
        self.for_devices = self.directory / "for-devices"
        self.secret_path = self.directory / "superexec.secret"
        self.instruction_key_path = self.directory / "instructions.key"
        self.flower_home = self.directory / "flower"
        self.database_path = self.flower_home / "state.db"
        self.authority_dir = self.directory / "authority"
        self.nodes_path = self.directory / "nodes.json"
        self.proxy_path = self.directory / "nginx.conf"
        self.runs_dir = self.directory / "runs"
        self.log_dir = self.directory / "logs"
        self.state_dir = self.directory / "state"
        self.instruction_sequence_path = self.state_dir / "instructions.last"
        self.control_secret_path = self.state_dir / "control.secret"
        self.processes_path = self.state_dir / "processes.json"

    def settings(self) -> ServerSettings:
        """What `server.toml` says.

        Raises:
            UsageError: there is no server in this folder.
            ConfigError: the file cannot be used.
        """
        return read_settings(
            self.settings_path,
            ServerSettings,
            f"there is no server in {self.directory}",
            "make one with: calyx server init DIR",
        )

    @property
    def local_address(self) -> str:
        """host:port under which processes on this machine reach the server."""
        settings = self.settings()
        host = LOOPBACK if settings.listen in _EVERYWHERE else settings.listen
        return f"{bracketed(host)}:{settings.port}"

    def run_dir(self, run: str) -> Path:
        """Folder of a run.

        Raises:
            UsageError: it cannot be the name of a run.
        """
        try:
            check_name("run", run)
        except ProtocolError as error:
            raise UsageError(str(error), hint=error.hint) from None
        if "/" in run or run.startswith("."):
            raise UsageError(
                f"{run!r} cannot be the name of a run",
                hint="choose a name without a slash that does not start with a dot",
            )
        if (size_bytes := len(os.fsencode(run))) > _NAME_BYTES:
            raise UsageError(
                f"the name of a run has at most {_NAME_BYTES} bytes; {run[:40]}... has "
                f"{size_bytes}",
                hint="choose a shorter --name",
            )
        return self.runs_dir / run

    def control_secret(self) -> str:
        """The secret that this server's own processes show to its SuperLink.

        Made by ``calyx server up``.

        Raises:
            UsageError: it is not there; the server is down.
        """
        try:
            return self.control_secret_path.read_text(encoding="ascii")
        except OSError:
            raise UsageError(
                f"the server in {self.directory} is not up",
                hint=f"start it with: calyx server up {self.directory}",
            ) from None
