"""Handing a run of a deployed server to Flower, and stopping it.

Flower wants an app bundle for each run. Ours holds a name and no code: the ServerApp that runs is
the one installed here (`calyx.server.deployment.executor`), the ClientApp the one on each device. A
run is carried out only as the exact Flower run that was handed over here: its bundle holds a ticket
for a single use, and the run's folder holds the ticket's digest. A bundle that someone else made
is not a run of this server, even if it names a prepared run.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import replace
from typing import Any

import tomli_w

from calyx.server.deployment.control import Control
from calyx.server.deployment.folder import ServerFolder
from calyx.server.deployment.submission import (
    Submission,
    finished,
    held,
    in_turn,
    read_submission,
    store,
    waiting,
)
from calyx.server.deployment.superlink.gate import Limits
from calyx.server.state.journal import FILE_NAME as JOURNAL
from calyx.shared.config import Config
from calyx.shared.config.load import build, digest, flatten, from_toml, to_run_config, to_toml
from calyx.shared.encryption import derive_parameters
from calyx.shared.errors import ConfigError, Fault, UsageError
from calyx.shared.host.atomic_write import write_atomically
from calyx.shared.protocol.flower import internals as flower
from calyx.shared.protocol.flower.bundle import bundle, bundle_config
from calyx.shared.protocol.sealed.messages import sum_shape

# Of the largest object that is accepted; the rest is for what goes with the ciphertexts.
_ROOM_FOR_AN_UPDATE = 0.98


def check_upload(config: Config, dimension: int) -> None:
    """Refuse a sealed run whose updates no device could hand over: each would cost budget.

    Args:
        config: the run.
        dimension: trainable parameters of its model.

    Raises:
        ConfigError: a sealed update is larger than what the server accepts from a device.
    """
    sealing = config.secure_aggregation
    if not config.is_sealed:
        return
    # The noise changes the bound of a value, never the number of fields in a slot.
    upload = derive_parameters(
        scheme=sealing.scheme,
        contributors=config.cohort_size,
        value_bound=sum_shape(config, dimension).value_bound,
        length=dimension,
    ).upload_bytes
    most = int(Limits().object_bytes * _ROOM_FOR_AN_UPDATE)
    if upload > most:
        raise ConfigError(
            f"a sealed update of {dimension:,} values has {upload:,} bytes; the server accepts "
            f"{most:,} at a time",
            hint="use a smaller model or a smaller secure_aggregation.bits",
        )


def submit(
    folder: ServerFolder, run: str, config: Config, environment: dict[str, Any], *, resume: bool
) -> Submission:
    """Prepare the folder of a new or resumed run, and hand the run to Flower.

    Args:
        folder: the server; it must be up.
        run: name of the run, and of its folder under ``runs``.
        config: what to do.
        environment: for `environment.json`.
        resume: continue a run of this name where it stopped.

    Raises:
        UsageError: the server is down, or the run exists (or does not, with `resume`).
        ConfigError: resumed with other settings, or a sealed run without a key authority.
    """
    if config.is_sealed and not folder.settings().authority:
        raise ConfigError(
            "a sealed run needs a key authority",
            hint=f"name it with: calyx server authority {folder.directory} HOST:PORT FOLDER",
        )
    path = folder.run_dir(run)
    config_path = path / "config.toml"
    if resume:
        read_submission(folder, run)
    else:
        folder.runs_dir.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir()
        except FileExistsError:
            raise UsageError(
                f"a run {run!r} already exists",
                hint="continue it with --resume, or choose another --name",
            ) from None
    with held(path):
        if resume:
            before = read_submission(folder, run)
            if before.is_open:
                raise UsageError(
                    f"run {run!r} is already under way",
                    hint=f"see: calyx server status {folder.directory}",
                )
            _check_same(config_path.read_text(encoding="utf-8"), config)
            # It is rewritten from the last checkpoint; a follower must not see the old one.
            (path / JOURNAL).unlink(missing_ok=True)
        else:
            before = Submission(run, "submitted", 0, 0)
            write_atomically(
                path / "environment.json", (json.dumps(environment, indent=2) + "\n").encode()
            )
            write_atomically(config_path, to_toml(config).encode())
        return hand_over(folder, waiting(before), config)


def hand_over(folder: ServerFolder, submission: Submission, config: Config) -> Submission:
    """Give a prepared run to Flower, for the first time or again."""
    ticket = secrets.token_hex(32)
    handed = replace(
        submission,
        state="submitted",
        flower_run_id=0,
        attempts=submission.attempts + 1,
        ticket_digest=hashlib.sha256(ticket.encode()).hexdigest(),
    )
    # Before it is given away: from then on the executor writes this file.
    store(folder, handed)
    with Control(folder) as control:
        control.start_run(_bundle(handed.run, ticket), to_run_config(config))
    return handed


def stop_run(folder: ServerFolder, run: str) -> Submission:
    """End a waiting or running run; a running one ends soon after this returns.

    The stop is written down before Flower is told of it. Flower takes the claim on a run away when
    the run is stopped, as it does when it gives an attempt up, and the executor would hand it over
    again. It also throws away what no device has fetched; a device that is already training has
    charged itself for that round, and gives the same answer when the run is resumed.

    Raises:
        UsageError: there is none, or it has ended.
        RunError: the SuperLink cannot be reached; the run ends all the same, later.
    """
    read_submission(folder, run)
    with in_turn(folder, run) as submission:
        if not submission.is_open:
            raise UsageError(f"run {run!r} has already ended: {submission.state}")
        if submission.state == "submitted":
            stopping = finished(submission, "stopped")
        else:
            stopping = replace(submission, state="stopping")
        store(folder, stopping)
    if stopping.flower_run_id and folder.running_pid() is not None:
        with Control(folder) as control:
            control.stop_run(stopping.flower_run_id)
    return stopping


def run_of_bundle(content: bytes) -> tuple[str, str]:
    """Name of the run that a bundle was made for, and its ticket; empty if it is not ours."""
    try:
        ours = bundle_config(content)["tool"]["calyx"]
        run, ticket = ours["run"], ours["ticket"]
    except (KeyError, TypeError, ValueError):
        return "", ""
    return (run, ticket) if isinstance(run, str) and isinstance(ticket, str) else ("", "")


def _bundle(run: str, ticket: str) -> bytes:
    """A bundle with a name and no code that runs; its hash differs for each attempt."""
    project = {
        "project": {
            "name": "calyx-run",
            "version": "0.0.0",
            "description": "A run of Calyx; its code is installed on the server and the devices",
            "license": "Apache-2.0",
            "dependencies": [],
        },
        "tool": {
            "calyx": {"run": run, "ticket": ticket},
            "flwr": {
                "app": {
                    "publisher": "calyx",
                    "components": {"serverapp": "none:app", "clientapp": "none:app"},
                    "config": Config().model_dump(),
                }
            },
        },
    }
    return bundle({flower.FAB_CONFIG_FILE: tomli_w.dumps(project).encode()})


def _check_same(stored: str, config: Config) -> None:
    before = build(from_toml(stored))
    if digest(before) == digest(config):
        return
    old, new = flatten(before.model_dump()), flatten(config.model_dump())
    raise ConfigError(
        "a run can only be resumed with the settings it was started with",
        [
            Fault(key, str(new[key]), f"the run was started with {old[key]}")
            for key in old
            if old[key] != new[key] and key not in ("name", "data.directory")
        ],
    )
