"""The folder of a run: everything needed to resume, repeat, plot and audit it.

::

    runs/NAME/
      run.json            which run this is, whatever its folder is called
      config.toml         the resolved configuration, every default written out
      environment.json    versions, git commit, randomness, command
      partition.npz       record indices of every simulated client
      ledgers/            one privacy ledger a client
      batches/            which records entered which batch, with record-level privacy
      checkpoints/        the server's state after the last two rounds
      metrics.jsonl       one event a line
      tensorboard/        the same for TensorBoard
      model.safetensors   the final weights
"""

from __future__ import annotations

import io
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from calyx.server.state.journal import RunEvents
from calyx.shared.config import Config
from calyx.shared.config.load import build, digest, flatten, from_toml, to_toml
from calyx.shared.errors import ConfigError, Fault, RunError
from calyx.shared.host.atomic_write import write_atomically
from calyx.shared.host.regular_file import UnfitFile, read_regular
from calyx.shared.protocol.identity import code_hash, software_version
from calyx.simulations.claim import check_length, check_vacant
from calyx.simulations.run_identity import FILE_NAME as IDENTITY
from calyx.simulations.run_identity import RunIdentity, identity_of

# Whose hash says by which code a run was made.
CODE_OF_A_RUN = (
    "calyx.server",
    "calyx.client",
    "calyx.authority",
    "calyx.shared",
    "calyx.simulations",
)
_PACKAGES = ("flwr", "torch", "opacus", "tenseal", "dp-accounting", "numpy", "flwr-datasets")
_MOST_TEXT_BYTES = 1 << 20


class RunFolder:
    """Paths and contents of one run folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @property
    def config_path(self) -> Path:
        """Written last when the folder is made: with it the folder is complete."""
        return self.path / "config.toml"

    @property
    def run(self) -> str:
        """The run's name in its clients' ledgers and at the key authority.

        Raises:
            RunError: the folder does not tell.
        """
        return identity_of(self.path).run

    def keep_identity(self) -> None:
        """Write down which run this is, if an earlier version did not.

        Raises:
            RunError: the folder cannot be written.
        """
        try:
            if not (self.path / IDENTITY).exists():
                identity_of(self.path).store(self.path)
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be written: {error.strerror}",
                hint="check the folder's permissions and free space",
            ) from None

    @property
    def partition_path(self) -> Path:
        """Record indices by client."""
        return self.path / "partition.npz"

    @property
    def ledger_dir(self) -> Path:
        """Where the simulated clients keep their ledgers."""
        return self.path / "ledgers"

    def ledger_path(self, client: int) -> Path:
        """Ledger of one simulated client."""
        return self.ledger_dir / f"client-{client:04d}.sqlite"

    def batches_path(self, client: int) -> Path:
        """Batch log of one simulated client."""
        return self.path / "batches" / f"client-{client:04d}.jsonl"

    @property
    def exists(self) -> bool:
        """Whether a run was prepared here."""
        return self.config_path.is_file()

    def stored_config(self) -> Config:
        """The configuration of the run in this folder."""
        try:
            text = read_regular(self.config_path, self.path, _MOST_TEXT_BYTES).decode("utf-8")
        except UnfitFile as error:
            raise ConfigError(
                f"{self.config_path} cannot be read: {error}",
                hint="restore it from a copy",
            ) from None
        return build(from_toml(text, where=str(self.config_path)))

    def model(self) -> bytes:
        """The final weights, as safetensors.

        Raises:
            RunError: they cannot be read.
        """
        path = self.path / "model.safetensors"
        try:
            return read_regular(path, self.path)
        except OSError as error:
            raise RunError(
                f"{path} cannot be read: {error}",
                hint="restore it from a copy",
            ) from None

    def told(self) -> RunEvents:
        """What the run has told so far.

        Raises:
            RunError: its journal cannot be read.
        """
        return RunEvents.read(self.path)

    def check_same(self, config: Config) -> None:
        """Refuse to resume with other settings.

        Raises:
            ConfigError: listing every setting that differs.
        """
        stored = self.stored_config()
        if digest(stored) == digest(config):
            return
        before, now = flatten(stored.model_dump()), flatten(config.model_dump())
        faults = [
            Fault(key, str(now[key]), f"the run was started with {before[key]}")
            for key in before
            if before[key] != now[key] and key not in ("name", "data.directory")
        ]
        raise ConfigError(
            "a run can only be resumed with the settings it was started with",
            faults,
            hint="give the same settings, or start a new run without --resume",
        )

    def prepare(self, config: Config, partition: list[np.ndarray[Any, Any]]) -> None:
        """Fill a new folder; the config comes last and marks it complete.

        Raises:
            RunError: the folder cannot be written.
        """
        try:
            self.ledger_dir.mkdir(parents=True, exist_ok=True)
            RunIdentity.draw(self.path).store(self.path)
            (self.path / "batches").mkdir(exist_ok=True)
            buffer = io.BytesIO()
            arrays = {f"client-{number}": indices for number, indices in enumerate(partition)}
            np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
            write_atomically(self.partition_path, buffer.getvalue())
            environment = json.dumps(environment_of(config), indent=2) + "\n"
            write_atomically(self.path / "environment.json", environment.encode())
            write_atomically(self.config_path, to_toml(config).encode())
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be written: {error.strerror}",
                hint="check the folder's permissions and free space",
            ) from None


def folder_to_resume(out: Path | None, name: str) -> RunFolder:
    """Find the run to resume: `out`, or the newest of this preset under ``runs``.

    Raises:
        ConfigError: there is none, or `out` holds something else.
    """
    if out is not None:
        folder = RunFolder(out)
        check_length(out)
        if not folder.exists:
            check_vacant(out, resumed=True)
        return folder
    candidates = [p for p in Path("runs").glob(f"{name}-*") if (p / "config.toml").is_file()]
    if not candidates:
        raise ConfigError(
            f"there is no run of {name} in the folder runs",
            hint="leave out --resume to start one",
        )
    return RunFolder(max(candidates, key=lambda p: p.stat().st_mtime))


def environment_of(config: Config) -> dict[str, Any]:
    """What the run was made with, for anyone who wants to repeat it."""
    return {
        "calyx": software_version(),
        "code_hash": code_hash(CODE_OF_A_RUN),
        "git_commit": _git_commit(),
        "config_digest": digest(config),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "randomness": {
            "seed": config.seed,
            "noise": "AES-128 counter mode keyed from the seed: a simulation, not for real data"
            if config.is_private
            else "none",
        },
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Commit of the source tree, None when installed without one."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
