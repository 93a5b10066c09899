"""A run of a deployed server: its folder, its state, and handing it to Flower.

Flower wants an app bundle for each run. Ours holds a name and no code: the ServerApp that runs is
the one installed here (`calyx.server.deployment.executor`), the ClientApp the one on each device. A
run is carried out only as the very Flower run that was handed over here: its bundle holds a ticket,
good for once, whose digest is in the run's folder. A bundle that somebody else made and that names
a prepared run is nobody's run.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import tomli_w

from calyx.server.deployment.control import Control
from calyx.server.deployment.folder import ServerFolder
from calyx.server.deployment.superlink.gate import Limits
from calyx.server.state.journal import FILE_NAME as JOURNAL
from calyx.shared.config import Config
from calyx.shared.config.load import build, digest, flatten, from_toml, to_run_config, to_toml
from calyx.shared.encryption import derive_parameters
from calyx.shared.errors import ConfigError, Fault, UsageError
from calyx.shared.host.atomic_write import write_atomically
from calyx.shared.host.process_lock import exclusive
from calyx.shared.protocol.flower import internals as flower
from calyx.shared.protocol.sealed.messages import sum_shape

State = Literal["submitted", "running", "stopping", "completed", "failed", "stopped"]
_OPEN: tuple[State, ...] = ("submitted", "running", "stopping")
# A command holds a run's folder while it calls the SuperLink, which may take so long.
_TURN_S, _PAUSE_S = 60.0, 0.05
# A run that crashes its ServerApp again and again will not be mended by one more try.
MOST_ATTEMPTS = 5
# Of the largest object that is taken in; the rest is for what goes with the ciphertexts.
_ROOM_FOR_AN_UPDATE = 0.98


@dataclass(frozen=True)
class Submission:
    """`submission.json` of a run.

    Attributes:
        run: its name, also in the devices' ledgers.
        state: submitted (waits for the executor), running, stopping (its operator wants it to end;
            whatever ends it now, it is not handed to Flower again), completed, failed or stopped.
        flower_run_id: Flower's number of the latest attempt; 0 while it waits.
        attempts: how often it was handed to Flower.
        ticket_digest: SHA-256 of the ticket in the bundle of the latest attempt, hex.
        error: why it failed; one line.
        submitted_at, finished_at: ISO 8601, UTC; empty if not yet.
    """

    run: str
    state: State
    flower_run_id: int
    attempts: int
    ticket_digest: str = ""
    error: str = ""
    submitted_at: str = ""
    finished_at: str = ""

    def is_carried_out_by(self, flower_run_id: int, ticket: str) -> bool:
        """Whether a Flower run is the one that this run was handed over as.

        One ticket is for one Flower run: the first that shows it, which is the one it was made
        for, because nobody else has it before.

        Args:
            flower_run_id: Flower's number.
            ticket: from its bundle.
        """
        shown = hashlib.sha256(ticket.encode()).hexdigest()
        if not ticket or not hmac.compare_digest(shown, self.ticket_digest):
            return False
        return self.flower_run_id in (0, flower_run_id)

    @property
    def is_open(self) -> bool:
        """Whether it is still to be carried out."""
        return self.state in _OPEN


def check_upload(config: Config, dimension: int) -> None:
    """Refuse a sealed run whose updates no device could hand over: each would be paid for.

    Args:
        config: the run.
        dimension: trainable parameters of its model.

    Raises:
        ConfigError: a sealed update is larger than what the server takes in of a device.
    """
    if not config.is_sealed:
        return
    # The noise changes the bound of a value, never the number of fields in a slot.
    upload = derive_parameters(
        scheme=config.secure_aggregation.scheme,
        contributors=config.cohort_size,
        value_bound=sum_shape(config, dimension).value_bound,
        length=dimension,
    ).upload_bytes
    most = int(Limits().object_bytes * _ROOM_FOR_AN_UPDATE)
    if upload > most:
        raise ConfigError(
            f"a sealed update of {dimension:,} values has {upload:,} bytes, and the server takes "
            f"in {most:,} at a time; use a smaller model or fewer "
            "secure_aggregation.bits"
        )


def submit(
    folder: ServerFolder, run: str, config: Config, environment: dict[str, Any], *, resume: bool
) -> Submission:
    """Prepare the folder of a run, or of one that goes on, and hand it to Flower.

    Args:
        folder: the server; it must be up.
        run: name of the run, and of its folder under ``runs``.
        config: what to do.
        environment: for `environment.json`.
        resume: go on with a run of this name where it stopped.

    Raises:
        UsageError: the server is down, or the run exists (or does not, with `resume`).
        ConfigError: resumed with other settings, or a sealed run without a key authority.
    """
    if config.is_sealed and not folder.settings().authority:
        raise ConfigError(
            "a sealed run needs a key authority; name it with: "
            f"calyx server authority {folder.directory} HOST:PORT FOLDER"
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
                f"there is a run {run!r} already; go on with --resume, or choose another --name"
            ) from None
    with held(path):
        if resume:
            before = read_submission(folder, run)
            if before.is_open:
                raise UsageError(f"run {run!r} goes on already; see: calyx server status")
            _check_same(config_path.read_text(encoding="utf-8"), config)
            # It is made anew from the last checkpoint; who follows it must not see the old one.
            (path / JOURNAL).unlink(missing_ok=True)
        else:
            before = Submission(run, "submitted", 0, 0)
            write_atomically(
                path / "environment.json", (json.dumps(environment, indent=2) + "\n").encode()
            )
            write_atomically(config_path, to_toml(config).encode())
        fresh = replace(before, state="submitted", error="", attempts=0, submitted_at=_now())
        return hand_over(folder, replace(fresh, finished_at=""), config)


def held(run_dir: Path) -> AbstractContextManager[None]:
    """Hold the folder of a run: while it is handed over, by its operator's command.

    Raises:
        UsageError: another process has it.
    """
    return exclusive(run_dir / ".lock", f"another calyx command writes in {run_dir}; wait for it")


@contextmanager
def in_turn(folder: ServerFolder, run: str) -> Iterator[Submission]:
    """The state of a run, which nobody else changes before the block ends.

    Raises:
        UsageError: another process has it for too long.
    """
    deadline = time.monotonic() + _TURN_S
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(held(folder.run_dir(run)))
                break
            except UsageError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE_S)
        yield read_submission(folder, run)


def hand_over(folder: ServerFolder, submission: Submission, config: Config) -> Submission:
    """Give a prepared run to Flower, for the first time or again."""
    ticket = secrets.token_hex(32)
    waiting = replace(
        submission,
        state="submitted",
        flower_run_id=0,
        attempts=submission.attempts + 1,
        ticket_digest=hashlib.sha256(ticket.encode()).hexdigest(),
    )
    # Before it is given away: from then on the executor writes this file.
    store(folder, waiting)
    with Control(folder) as control:
        control.start_run(_bundle(waiting.run, ticket), to_run_config(config))
    return waiting


def stop_run(folder: ServerFolder, run: str) -> Submission:
    """End a run that waits or goes on; of one that goes on, soon after this returns.

    That it is to stop is written down before Flower is told. Flower takes the claim on a run away
    when it is stopped, as it does when it gives an attempt up, and the executor would hand it over
    again. It also throws away what no device has fetched; a device that trains already has charged
    itself for that round, and answers as before when the run is resumed.

    Raises:
        UsageError: there is none, or it has ended.
        RunError: the SuperLink cannot be reached; the run ends all the same, later.
    """
    read_submission(folder, run)
    with in_turn(folder, run) as submission:
        if not submission.is_open:
            raise UsageError(f"run {run!r} has ended already: {submission.state}")
        if submission.state == "submitted":
            stopping = finished(submission, "stopped")
        else:
            stopping = replace(submission, state="stopping")
        store(folder, stopping)
    if stopping.flower_run_id and folder.running_pid() is not None:
        with Control(folder) as control:
            control.stop_run(stopping.flower_run_id)
    return stopping


def wait_for_end(folder: ServerFolder, run: str, timeout_s: float) -> Submission:
    """The state of a run once it has ended, or as it is when the time is up."""
    deadline = time.monotonic() + timeout_s
    while (submission := read_submission(folder, run)).is_open and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
    return submission


def run_of_bundle(content: bytes) -> tuple[str, str]:
    """Name of the run that a bundle was made for, and its ticket; empty if it is none of ours."""
    try:
        ours = flower.bundle_config(content)["tool"]["calyx"]
        run, ticket = ours["run"], ours["ticket"]
    except (KeyError, TypeError, ValueError):
        return "", ""
    return (run, ticket) if isinstance(run, str) and isinstance(ticket, str) else ("", "")


def stored_config(folder: ServerFolder, run: str) -> Config:
    """The configuration of a prepared run.

    Raises:
        UsageError: no run of this name was prepared here.
    """
    path = folder.run_dir(run) / "config.toml"
    try:
        return build(from_toml(path.read_text(encoding="utf-8"), where=str(path)))
    except FileNotFoundError:
        raise UsageError(f"no run {run!r} was prepared here with calyx server run") from None


def read_submission(folder: ServerFolder, run: str) -> Submission:
    """The state of a run.

    Raises:
        UsageError: there is no such run, or its folder was renamed.
    """
    path = folder.run_dir(run) / "submission.json"
    try:
        found = _read(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"there is no run {run!r} in {folder.runs_dir}") from None
    if found.run != run:
        # Devices and the key authority know it by that name, and would charge another one anew.
        raise UsageError(
            f"the folder {path.parent} is of the run {found.run!r} and was renamed; rename it back"
        )
    return found


def submissions(folder: ServerFolder) -> list[Submission]:
    """All runs, the oldest first, but those whose folders were renamed."""
    paths = folder.runs_dir.glob("*/submission.json")
    found = [submission for p in paths if (submission := _read(p)).run == p.parent.name]
    return sorted(found, key=lambda s: s.submitted_at)


def _read(path: Path) -> Submission:
    return Submission(**json.loads(path.read_text(encoding="utf-8")))


def store(folder: ServerFolder, submission: Submission) -> None:
    """Write the state of a run, whole."""
    path = folder.run_dir(submission.run) / "submission.json"
    write_atomically(path, (json.dumps(asdict(submission), indent=1) + "\n").encode())


def finished(submission: Submission, state: State, error: str = "") -> Submission:
    """How a run ended."""
    return replace(submission, state=state, error=error, finished_at=_now())


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
    return flower.bundle({flower.FAB_CONFIG_FILE: tomli_w.dumps(project).encode()})


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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
