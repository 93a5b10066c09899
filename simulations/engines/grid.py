"""Flower's `Grid` on one machine without Ray or SuperLink: the `local` engine's runtime.

Messages are answered by the real ClientApp, either in this process (`InProcessExecutor`) or by
worker processes (`calyx.simulations.engines.pool.WorkerPool`). Both give every message the same
treatment, so the number of workers cannot change a result.
"""

from __future__ import annotations

import copy
import itertools
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Protocol

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from calyx.shared.errors import RunError

Settings = dict[str, str | int | float | bool]

RUN_ID = 1
SERVER_NODE_ID = 1
# Any positive numbers do; they only have to differ from the server's.
FIRST_CLIENT_NODE_ID = 2


def take_identity() -> None:
    """Tell Flower who this process is; without it no `Message` can be made."""
    TaskIdentity.task_id, TaskIdentity.run_id = RUN_ID, RUN_ID
    TaskIdentity.node_id = SERVER_NODE_ID


def client_contexts(
    node_configs: Mapping[int, Settings], run_config: Settings
) -> dict[int, Context]:
    """One Flower context a client node."""
    return {
        node: Context(
            run_id=RUN_ID,
            node_id=node,
            node_config=dict(settings),
            state=RecordDict(),
            run_config=dict(run_config),
        )
        for node, settings in node_configs.items()
    }


def answer(app: ClientApp, message: Message, context: Context) -> Message:
    """Run the ClientApp as Flower's runtimes do: an exception becomes an error reply."""
    try:
        return app(message, context)
    except Exception as error:  # what a runtime must do; the text may quote private records
        reason = f"unexpected {type(error).__name__} in the client app"
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


class ClientExecutor(Protocol):
    """Whatever answers messages."""

    def submit(self, message: Message) -> None:
        """Queue one message."""

    def collect(self, timeout_s: float) -> list[Message]:
        """Return replies that are ready, waiting up to `timeout_s` for the first."""

    def forget(self, message_ids: set[str]) -> None:
        """Drop messages that no one waits for any more, ending their work if it has begun."""

    def close(self) -> None:
        """Stop everything that was started."""


class InProcessExecutor:
    """Answers one message a `collect`, in this process, in the order they were sent."""

    def __init__(self, app: ClientApp, contexts: Mapping[int, Context]) -> None:
        self._app, self._contexts = app, contexts
        self._queue: deque[Message] = deque()

    def submit(self, message: Message) -> None:
        """Queue a copy: strategies put one and the same array record in all messages."""
        self._queue.append(copy.deepcopy(message))

    def collect(self, timeout_s: float) -> list[Message]:
        """Answer the next message; `timeout_s` cannot interrupt it."""
        if not self._queue:
            return []
        message = self._queue.popleft()
        return [answer(self._app, message, self._contexts[message.metadata.dst_node_id])]

    def forget(self, message_ids: set[str]) -> None:
        """Drop queued messages."""
        self._queue = deque(m for m in self._queue if m.metadata.message_id not in message_ids)

    def close(self) -> None:
        """Nothing to stop."""
        self._queue.clear()


class Tap(Protocol):
    """Sees every message that crosses the server's boundary: what an audit captures."""

    def sent(self, message: Message) -> None:
        """A message from the server to a client."""

    def received(self, message: Message) -> None:
        """A client's reply."""


class LocalGrid(Grid):
    """A Flower `Grid` whose nodes are answered by a `ClientExecutor` on this machine."""

    def __init__(
        self, executor: ClientExecutor, node_ids: Iterable[int], tap: Tap | None = None
    ) -> None:
        take_identity()
        self._executor, self._node_ids, self._tap = executor, list(node_ids), tap
        self._run = Run.create_empty(run_id=RUN_ID)
        self._numbers = itertools.count(1)
        self._outstanding: set[str] = set()

    def set_run(self, run: Run) -> None:
        """Part of Flower's interface."""
        self._run = run

    @property
    def run(self) -> Run:
        """Part of Flower's interface."""
        return self._run

    def get_node_ids(self) -> list[int]:
        """All simulated clients; they are always there."""
        return list(self._node_ids)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Part of Flower's interface."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Queue messages; whatever is still open from before is given up."""
        if self._outstanding:
            self._executor.forget(self._outstanding)
            self._outstanding = set()
        identifiers = []
        for message in messages:
            identifier = f"{next(self._numbers):016d}"
            message.metadata.__dict__["_message_id"] = identifier
            if message.metadata.dst_node_id not in self._node_ids:
                raise RunError(
                    f"there is no simulated client on node {message.metadata.dst_node_id}"
                )
            if self._tap is not None:
                self._tap.sent(message)
            self._executor.submit(message)
            identifiers.append(identifier)
        self._outstanding.update(identifiers)
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return replies that are ready, waiting briefly for the first."""
        wanted = set(message_ids)
        replies = [
            reply
            for reply in self._executor.collect(timeout_s=0.2)
            if reply.metadata.reply_to_message_id in wanted
        ]
        for reply in replies:
            reply.metadata.__dict__["_message_id"] = f"{next(self._numbers):016d}"
            self._outstanding.discard(reply.metadata.reply_to_message_id)
            if self._tap is not None:
                self._tap.received(reply)
        return replies

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Part of Flower's interface, in terms of the two methods above."""
        import time

        waiting = set(self.push_messages(messages))
        end = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting and (end is None or time.monotonic() < end):
            for reply in self.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                replies.append(reply)
        return replies
