"""The claim on a Flower run: taking it, keeping it, reporting its end.

It is written down (`state/task.json`), so that it outlives the process that took it.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import httpx

from calyx.server.deployment.folder import ServerFolder
from calyx.server.deployment.handover import run_of_bundle
from calyx.shared.errors import RunError
from calyx.shared.host.private_files import replace_file
from calyx.shared.protocol.flower import internals as flower
from calyx.shared.protocol.flower.http_retry import Rejected, RetryingClient
from calyx.shared.protocol.flower.interceptors import SecretHttpInterceptor

_log = logging.getLogger("calyx.server")
_HEARTBEAT_S = 10.0
_ACQUIRE = frozenset({"/flwr.proto.Runtime/AcquireTask"})


class TaskLost(RunError):
    """Flower no longer accepts this process's claim."""


@dataclass(frozen=True)
class Task:
    """The claim on one Flower run.

    Attributes:
        token: any process that has it acts for the run.
        task_id, run_id, node_id: Flower's numbers.
        run: its name here; empty if it is not one of ours.
        ticket: shows that it was handed over here; see `calyx.server.deployment.handover`.
    """

    token: str
    task_id: int
    run_id: int
    node_id: int
    run: str
    ticket: str = field(repr=False)


class Claims:
    """Calls of the SuperLink's Runtime API, and the file with the claim that is held.

    Args:
        folder: of the server.
        stop: set when pending calls are to end.
    """

    def __init__(self, folder: ServerFolder, stop: threading.Event) -> None:
        self._address, self._root = folder.local_address, folder.ca_path.read_bytes()
        self._secret = folder.control_secret()
        self._path = folder.state_dir / "task.json"
        self._retrying = RetryingClient(self._address, stop)
        self._client = flower.RuntimeHttpClient.from_server_address(
            self._address,
            False,
            self._root,
            interceptors=[
                flower.RuntimeVersionHttpInterceptor(component_name="SuperExec"),
                SecretHttpInterceptor(self._secret),
                flower.SuperExecAuthHttpInterceptor(
                    master_secret=folder.secret_path.read_bytes(), protected_methods=_ACQUIRE
                ),
            ],
        )

    def next_token(self) -> str:
        """The token of a waiting run, which this call claims; empty if none waits."""
        request = flower.AcquireTaskRequest(supported_task_types=[flower.TaskType.SERVER_APP])
        answer = self._retrying.call(self._client.AcquireTask, request)
        return str(answer.token) if answer.HasField("task") else ""

    def take(self, token: str) -> Task:
        """Ask what was claimed, and write it down."""
        with self.runtime(token) as client:
            answer = self._retrying.call(client.PullTaskInput, flower.PullTaskInputRequest())
        fab = flower.fab_from_proto(answer.fab)
        task = Task(
            token,
            int(answer.task_id),
            int(answer.run.run_id),
            int(answer.context.node_id),
            *run_of_bundle(fab.content),
        )
        replace_file(self._path, json.dumps(asdict(task)).encode())
        return task

    def left(self) -> Task | None:
        """The claim that is written down, by this process or one before it."""
        try:
            return Task(**json.loads(self._path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def drop(self) -> None:
        """Forget the claim."""
        self._path.unlink(missing_ok=True)

    def is_held(self, task: Task) -> bool:
        """Whether Flower still accepts a claim."""
        with self.runtime(task.token) as client:
            try:
                request = flower.SendTaskHeartbeatRequest()
                return bool(self._retrying.call(client.SendTaskHeartbeat, request).success)
            except Rejected:
                return False

    def report(self, task: Task, error: str) -> None:
        """Tell Flower how a run ended; `error` is empty if it went well."""
        status = flower.SubStatus
        request = flower.PushTaskOutputRequest(
            sub_status=status.FAILED if error else status.COMPLETED, details=error
        )
        with self.runtime(task.token) as client:
            try:
                self._retrying.call(client.PushTaskOutput, request)
            except Rejected as refusal:
                _log.warning("Flower did not take the result of %s: %s", task.run, refusal)

    @contextmanager
    def kept_alive(self, task: Task) -> Iterator[None]:
        """Keep the claim alive for a block."""
        ended = threading.Event()

        def beat() -> None:
            with self.runtime(task.token) as client:
                while True:
                    try:
                        client.SendTaskHeartbeat(flower.SendTaskHeartbeatRequest())
                    except (httpx.HTTPError, ValueError) as error:
                        _log.warning("heartbeat of run %s: %s", task.run, error)
                    if ended.wait(_HEARTBEAT_S):
                        return

        thread = threading.Thread(target=beat, name="task heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @contextmanager
    def runtime(self, token: str) -> Iterator[flower.RuntimeHttpClient]:
        """A client that acts for the run of a token."""
        client = flower.RuntimeHttpClient.from_server_address(
            self._address,
            False,
            self._root,
            interceptors=[
                flower.RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
                SecretHttpInterceptor(self._secret),
                flower.RuntimeTokenHttpInterceptor(token),
            ],
        )
        try:
            yield client
        finally:
            client.close()
