"""The state of a deployed server's run, in its folder: what was submitted and what came of it."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from calyx.server.deployment.folder import ServerFolder
from calyx.shared.config import Config
from calyx.shared.config.load import build, from_toml
from calyx.shared.errors import UsageError
from calyx.shared.host.atomic_write import write_atomically
from calyx.shared.host.process_lock import exclusive

State = Literal["submitted", "running", "stopping", "completed", "failed", "stopped"]
_OPEN: tuple[State, ...] = ("submitted", "running", "stopping")
# A command holds a run's folder while it calls the SuperLink, which may take this long.
_TURN_S, _PAUSE_S = 60.0, 0.05
# One more try will not mend a run that crashes its ServerApp again and again.
MOST_ATTEMPTS = 5


@dataclass(frozen=True)
class Submission:
    """`submission.json` of a run.

    Attributes:
        run: its name, also in the devices' ledgers.
        state: submitted (waits for the executor), running, stopping (its operator wants it to end;
            however it ends now, it is not handed to Flower again), completed, failed or stopped.
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
        """Whether this run was handed over as the given Flower run.

        One ticket is for one Flower run: the first that shows it, which is the one it was made
        for, because no other run has it before.

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


def held(run_dir: Path) -> AbstractContextManager[None]:
    """Hold the folder of a run: while it is handed over, by its operator's command.

    Raises:
        UsageError: another process has it.
    """
    return exclusive(
        run_dir / ".lock", f"another calyx command writes in {run_dir}", "wait until it has ended"
    )


@contextmanager
def in_turn(folder: ServerFolder, run: str) -> Iterator[Submission]:
    """The state of a run, which no other process changes before the block ends.

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


def wait_for_end(folder: ServerFolder, run: str, timeout_s: float) -> Submission:
    """The state of a run once it has ended, or as it is when the time is up."""
    deadline = time.monotonic() + timeout_s
    while (submission := read_submission(folder, run)).is_open and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
    return submission


def stored_config(folder: ServerFolder, run: str) -> Config:
    """The configuration of a prepared run.

    Raises:
        UsageError: no run of this name was prepared here.
    """
    path = folder.run_dir(run) / "config.toml"
    try:
        return build(from_toml(path.read_text(encoding="utf-8"), where=str(path)))
    except FileNotFoundError:
        raise UsageError(
            f"no run {run!r} was prepared here with calyx server run",
            hint=f"calyx server status {folder.directory} lists the runs",
        ) from None


def read_submission(folder: ServerFolder, run: str) -> Submission:
    """The state of a run.

    Raises:
        UsageError: there is no such run, or its folder was renamed.
    """
    path = folder.run_dir(run) / "submission.json"
    try:
        found = _read(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"there is no run {run!r} in {folder.runs_dir}",
            hint=f"calyx server status {folder.directory} lists the runs",
        ) from None
    if found.run != run:
        # Devices and the key authority know it by that name, and would charge another one again.
        raise UsageError(
            f"the folder {path.parent} belongs to the run {found.run!r} and was renamed",
            hint=f"rename it to {found.run}",
        )
    return found


def submissions(folder: ServerFolder) -> list[Submission]:
    """All runs, the oldest first, except those whose folders were renamed."""
    paths = folder.runs_dir.glob("*/submission.json")
    found = [submission for p in paths if (submission := _read(p)).run == p.parent.name]
    return sorted(found, key=lambda s: s.submitted_at)


def _read(path: Path) -> Submission:
    return Submission(**json.loads(path.read_text(encoding="utf-8")))


def store(folder: ServerFolder, submission: Submission) -> None:
    """Write the state of a run, whole."""
    path = folder.run_dir(submission.run) / "submission.json"
    write_atomically(path, (json.dumps(asdict(submission), indent=1) + "\n").encode())


def waiting(submission: Submission) -> Submission:
    """A run that now waits for its first attempt."""
    return replace(
        submission, state="submitted", error="", attempts=0, submitted_at=_now(), finished_at=""
    )


def finished(submission: Submission, state: State, error: str = "") -> Submission:
    """How a run ended."""
    return replace(submission, state=state, error=error, finished_at=_now())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
