"""Carries out runs with this ServerApp: ``python -m calyx.server.deployment.executor DIR``.

Takes the place of Flower's SuperExec and of the process it starts for each run. Nothing of an app
bundle is installed or imported. One warm process, one run at a time.

The claim on a run (`state/task.json`) outlives this process: when it is killed, its successor
shows the same claim and continues the same Flower run from the run's last checkpoint. If the claim
has lapsed meanwhile, the run is handed to Flower again, unless its operator has stopped it: Flower
takes the claim away in both cases, so a stop is written in the run's folder first.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path
from types import FrameType

from flwr.app import Context, RecordDict

from calyx.server.deployment.claim import Claims, Task, TaskLost
from calyx.server.deployment.enrolment import approved_nodes, record_limits
from calyx.server.deployment.folder import ServerFolder
from calyx.server.deployment.handover import hand_over
from calyx.server.deployment.signing import Signer, instruction_key
from calyx.server.deployment.submission import (
    MOST_ATTEMPTS,
    Submission,
    finished,
    in_turn,
    read_submission,
    store,
    stored_config,
    submissions,
)
from calyx.server.deployment.supervisor import end_with_parent
from calyx.server.state.journal import RunEvents
from calyx.server.state.outcome import check_effect
from calyx.shared.config.load import to_run_config
from calyx.shared.errors import CalyxError, UsageError
from calyx.shared.host.atomic_write import write_atomically
from calyx.shared.host.sequence_file import SequenceFile
from calyx.shared.protocol.authority.client import RemoteAuthority
from calyx.shared.protocol.flower import internals as flower
from calyx.shared.protocol.flower.compatibility import check_flower
from calyx.shared.protocol.flower.http_retry import Stopped
from calyx.shared.protocol.flower.server_grid import server_grid
from calyx.shared.protocol.message_size import SizeGuard

_log = logging.getLogger("calyx.server")
_BUSY_PAUSE_S, _IDLE_PAUSE_S, _BUSY_S = 0.1, 0.5, 60.0


class Executor:
    """Takes runs from the SuperLink of a folder and carries them out."""

    def __init__(self, folder: ServerFolder) -> None:
        check_flower()
        self._folder, self._address = folder, folder.local_address
        self._root, self._secret = folder.ca_path.read_bytes(), folder.control_secret()
        self._sequence = SequenceFile(folder.instruction_sequence_path)
        self._signing_key = instruction_key(folder)
        self._stop = threading.Event()
        self._claims = Claims(folder, self._stop)

    def serve(self) -> None:
        """Carry out runs until SIGTERM."""
        self._go_on()
        last = time.monotonic()
        while not self._stop.is_set():
            if token := self._claims.next_token():
                self._begin(token)
                last = time.monotonic()
                continue
            is_busy = time.monotonic() - last < _BUSY_S
            self._stop.wait(_BUSY_PAUSE_S if is_busy else _IDLE_PAUSE_S)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM ends this process; with SIGINT Flower says that the claim is lost."""
        if number == signal.SIGTERM:
            self._stop.set()
            raise Stopped
        raise TaskLost("Flower has given up this attempt")

    def _begin(self, token: str) -> None:
        task = self._claims.take(token)
        self._carry_out(task)

    def _go_on(self) -> None:
        """What a killed predecessor left undone."""
        task = self._claims.left()
        left = self._submission(task) if task is not None else None
        if task is not None and self._claims.is_held(task):
            _log.warning("going on with run %s after a crash", task.run)
            self._carry_out(task)
        elif left is not None and left.state == "submitted":
            self._again(left)  # taken, and not begun: no other process has its ticket
        self._claims.drop()
        for submission in submissions(self._folder):
            if submission.state in ("running", "stopping"):
                self._again(submission)

    def _again(self, left: Submission) -> None:
        """Hand an interrupted run to Flower again; end it if its operator wants that."""
        with in_turn(self._folder, left.run) as submission:
            self._again_or_end(submission)

    def _again_or_end(self, submission: Submission) -> None:
        if submission.state == "stopping":
            store(self._folder, finished(submission, "stopped"))
            _log.info("run %s stopped", submission.run)
            return
        if not submission.is_open:
            return
        if submission.attempts >= MOST_ATTEMPTS:
            error = f"it was broken off {MOST_ATTEMPTS} times; see logs/serverapp.log"
            store(self._folder, finished(submission, "failed", error))
            return
        _log.warning("handing run %s to Flower again", submission.run)
        hand_over(self._folder, submission, stored_config(self._folder, submission.run))

    def _carry_out(self, task: Task) -> None:
        submission, error = self._begun(task), ""
        if submission is not None and not submission.is_open:
            self._claims.report(task, f"it was {submission.state} before it began")
            self._claims.drop()
            return
        if submission is None:
            error = "this run was not started with calyx server run; it is not carried out here"
            _log.error("Flower run %d: %s", task.run_id, error)
        else:
            try:
                with self._claims.kept_alive(task):
                    self._serve_run(task)
            except Stopped:
                raise  # the claim stays; the next process continues the run
            except (TaskLost, flower.RunNotRunningException):
                self._claims.drop()
                self._again(submission)
                return
            except CalyxError as failure:
                error = failure.full_text
            except Exception as failure:  # a run must not end the executor
                traceback.print_exc()
                text = " ".join(str(failure).split())
                error = f"unexpected {type(failure).__name__}: {text}; see logs/serverapp.log"
        self._claims.report(task, error)
        if submission is not None:
            self._end(submission.run, error)
        self._claims.drop()

    def _begun(self, task: Task) -> Submission | None:
        """The run of a task, now running, or ended because it was to stop."""
        if self._submission(task) is None:
            return None
        with in_turn(self._folder, task.run):
            submission = self._submission(task)  # it may have been stopped and resumed since
            if submission is None or not submission.is_open:
                return submission
            if submission.state == "stopping":
                begun = finished(submission, "stopped")
            else:
                begun = replace(submission, state="running", flower_run_id=task.run_id)
            store(self._folder, begun)
            return begun

    def _end(self, run: str, error: str) -> None:
        """Note how a run ended. A fault while it was being stopped is no failure of the run."""
        with in_turn(self._folder, run) as latest:
            if error and latest.state == "stopping":
                end = finished(latest, "stopped")
            else:
                end = finished(latest, "failed" if error else "completed", error)
            store(self._folder, end)
        _log.info("run %s %s %s", run, end.state, error)

    def _serve_run(self, task: Task) -> None:
        from calyx.server.app import serve

        config = stored_config(self._folder, task.run)
        identity = flower.TaskIdentity
        identity.task_id, identity.run_id = task.task_id, task.run_id
        identity.node_id = task.node_id
        run_config = to_run_config(config)
        signer = Signer(self._signing_key, self._sequence, self._device_names, run_config)
        most = self._folder.settings().max_reply_bytes
        too_large = f"it is larger than max_reply_bytes = {most} in server.toml, or in many pieces"
        grid = server_grid(
            self._address,
            self._root,
            task.token,
            self._secret,
            signer.sign,
            lambda: SizeGuard(most, too_large),
        )
        grid.set_run(flower.Run.create_empty(run_id=task.run_id))
        context = Context(
            run_id=task.run_id,
            node_id=task.node_id,
            node_config={
                "run": task.run,
                "run-dir": str(self._folder.run_dir(task.run)),
                "engine": "deployment",
                "workers": 0,
                "device-names": json.dumps(self._device_names()),
                "record-limits": json.dumps(record_limits(self._folder)),
            },
            state=RecordDict(),
            run_config=run_config,
        )
        authority = self._authority() if config.is_sealed else None
        try:
            serve(grid, context, authority)
            check_effect(RunEvents.read(self._folder.run_dir(task.run)).rounds)
            if authority is not None:
                authority.close_run(task.run)
        finally:
            grid.close()
            if authority is not None:
                authority.close()

    def _device_names(self) -> dict[int, str]:
        nodes = approved_nodes(self._folder).values()
        return {node.node_id: node.name for node in nodes if not node.is_revoked}

    def _authority(self) -> RemoteAuthority:
        target = self._folder.settings().authority
        names = ("root.pem", "server.pem", "server-key.pem")
        root, certificate, key = ((self._folder.authority_dir / n).read_bytes() for n in names)
        return RemoteAuthority(target, root, certificate, key)

    def _submission(self, task: Task) -> Submission | None:
        """The run that a task was handed over for; None for all other tasks."""
        try:
            submission = read_submission(self._folder, task.run) if task.run else None
        except UsageError:
            return None
        if submission is None or not submission.is_carried_out_by(task.run_id, task.ticket):
            return None
        return submission


def main() -> None:
    """Carry out the runs of the given folder until SIGTERM."""
    end_with_parent()
    form = "%(asctime)s %(levelname)s %(name)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    folder = ServerFolder(Path(sys.argv[1]))
    import torch

    import calyx.server.app  # noqa: F401 - warm before the first run

    torch.set_num_threads(1)
    executor = Executor(folder)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, executor.on_signal)
    write_atomically(folder.state_dir / "executor.pid", str(os.getpid()).encode())
    try:
        executor.serve()
    except Stopped:
        _log.info("stopped")


if __name__ == "__main__":
    main()
