"""Worker processes that play the clients of a simulation, one thread each.

The workers are fresh Python processes (not forks: threads of this process could be in any state),
connected by a socket pair. Messages cross it in Flower's own wire format, never as pickle. A
worker that dies answers for its client with an error and is replaced; a worker that is still busy
when its round is given up is ended, so a hung client cannot outlive its deadline.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto

from calyx.shared.errors import RunError
from calyx.simulations.engines.grid import Settings

_START_TIMEOUT_S = 120.0
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}


def encode(message: Message) -> bytes:
    """A message in Flower's wire format."""
    return bytes(message_to_proto(message).SerializeToString())


def decode(data: bytes) -> Message:
    """Inverse of `encode`."""
    return message_from_proto(MessageProto.FromString(data))


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: Connection
    ready: bool = False
    message: Message | None = field(default=None)


class WorkerPool:
    """An `ClientExecutor` of `size` processes that all can play any client."""

    def __init__(
        self,
        size: int,
        app: str,
        node_configs: Mapping[int, Settings],
        run_config: Settings,
        *,
        verbose: bool = False,
    ) -> None:
        """Start the workers without waiting for them.

        Args:
            size: number of processes.
            app: the ClientApp as ``module:attribute``.
            node_configs: settings of each client node.
            run_config: Flower's flat run config.
            verbose: let the workers' log output through.
        """
        self._start_message = json.dumps(
            {
                "app": app,
                "nodes": list(node_configs.items()),
                "run_config": run_config,
                "path": sys.path,
            }
        ).encode()
        self._verbose = verbose
        self._queue: deque[Message] = deque()
        self._lost: list[Message] = []
        self._workers = [self._start() for _ in range(size)]

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        quiet = None if self._verbose else subprocess.DEVNULL
        process = subprocess.Popen(
            # -P: a folder named "client" where the user happens to be must not be imported.
            [sys.executable, "-P", "-m", "calyx.simulations.engines.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, **ONE_THREAD},
            stdin=subprocess.DEVNULL,
            stdout=quiet,
            stderr=quiet,
        )
        theirs.close()
        pipe = Connection(ours.detach())
        pipe.send_bytes(self._start_message)
        return _Worker(process, pipe)

    def submit(self, message: Message) -> None:
        """Queue one message and hand it out if a worker is free."""
        self._queue.append(message)
        self._hand_out()

    def collect(self, timeout_s: float) -> list[Message]:
        """Return replies that are ready, waiting up to `timeout_s` for the first."""
        self._hand_out()
        replies, self._lost = self._lost, []
        if replies or not (self._queue or any(w.message for w in self._workers)):
            return replies
        by_pipe = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(by_pipe), timeout=timeout_s):
            replies += self._receive(by_pipe[pipe])  # type: ignore[index]
        self._hand_out()
        return replies

    def _receive(self, worker: _Worker) -> list[Message]:
        try:
            data = worker.pipe.recv_bytes()
        except (EOFError, OSError):
            return self._replace(worker)
        if not worker.ready:
            worker.ready = True
            if problem := data.decode():
                raise RunError(f"a worker process could not start: {problem}")
            return []
        worker.message = None
        return [decode(data)]

    def _replace(self, worker: _Worker) -> list[Message]:
        """A worker died: answer for its client and start another in its place."""
        if not worker.ready:
            raise RunError(
                "a worker process ended while starting",
                hint="the same command with --verbose shows why",
            )
        message = worker.message
        self._end(worker)
        self._workers[self._workers.index(worker)] = self._start()
        if message is None:
            return []
        reason = "the client's process ended without an answer"
        return [Message(Error(ErrorCode.CLIENT_APP_CRASHED, reason), reply_to=message)]

    def _hand_out(self) -> None:
        for worker in list(self._workers):
            if self._queue and worker.ready and worker.message is None:
                worker.message = self._queue.popleft()
                try:
                    worker.pipe.send_bytes(encode(worker.message))
                except OSError:
                    self._lost += self._replace(worker)

    def forget(self, message_ids: set[str]) -> None:
        """Drop queued messages and end the workers that are busy with one of them."""
        self._queue = deque(m for m in self._queue if m.metadata.message_id not in message_ids)
        for index, worker in enumerate(self._workers):
            if worker.message and worker.message.metadata.message_id in message_ids:
                self._end(worker)
                self._workers[index] = self._start()

    def wait_until_ready(self) -> None:
        """Wait until every worker has loaded the app.

        Raises:
            RunError: one of them could not.
        """
        deadline = time.monotonic() + _START_TIMEOUT_S
        while waiting := [w for w in self._workers if not w.ready]:
            if time.monotonic() > deadline:
                raise RunError(
                    f"worker processes did not start within {_START_TIMEOUT_S:g} s",
                    hint="use fewer --workers",
                )
            for pipe in wait([w.pipe for w in waiting], timeout=1.0):
                self._receive(next(w for w in waiting if w.pipe is pipe))

    def _end(self, worker: _Worker) -> None:
        worker.pipe.close()
        worker.process.kill()
        worker.process.wait()

    def close(self) -> None:
        """End all workers; none outlives the simulation."""
        for worker in self._workers:
            self._end(worker)
        self._workers = []
