"""A device's connection to the server: Flower's Fleet API, called from inside the client process.

Flower's own SuperNode is a second process that fetches the server's code, keeps messages in a
store, and hands them to an executor over a port of its own. To the server this is the same node
(same API, same key, same heartbeats), without the port, the store and the code: the run comes as a
configuration, and the code that runs is the code installed here (docs/adr/0013).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec

from calyx.client.deployment.message_size import guard_of, most_bytes
from calyx.shared.errors import CalyxError, EnrolmentError, RunError
from calyx.shared.protocol.flower import internals as flower
from calyx.shared.protocol.flower.answer_limit import AnswerRefused, limit_answers
from calyx.shared.protocol.flower.compatibility import check_flower
from calyx.shared.protocol.flower.http_retry import FIRST_LOOK_S, Rejected, RetryingClient, Stopped
from calyx.shared.protocol.flower.interceptors import NodeAuthHttpInterceptor

_HEARTBEAT_S = flower.HEARTBEAT_DEFAULT_INTERVAL / 3
# A server's arrays come from the SuperLink's machine; if they do not come, their sender has died.
_OBJECTS_TIMEOUT_S = 10.0
_UNAUTHORIZED, _FORBIDDEN = 401, 403
RunConfig = dict[str, str | int | float | bool]


class RunOver(Exception):
    """The server has ended the run that a message or reply belongs to."""


class MessageLost(RunError):
    """A message that could not be read, or a reply that the server did not accept."""


class Fleet:
    """The server, as this device sees it.

    Args:
        address: host:port.
        root_certificate: the pinned CA, PEM.
        key: the device's P-384 key.
        max_message_bytes: a larger message is not fetched.
        stop: set to end pending calls.
        on_trouble: see `RetryingClient`.
    """

    def __init__(
        self,
        address: str,
        root_certificate: bytes,
        key: ec.EllipticCurvePrivateKey,
        max_message_bytes: int,
        stop: threading.Event,
        on_trouble: Callable[[str], None],
    ) -> None:
        check_flower()
        self._address, self._public_key = address, key.public_key()
        self._client = flower.FleetHttpClient.from_server_address(
            address,
            False,
            root_certificate,
            interceptors=[
                flower.RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(key, self._public_key),
            ],
        )
        limit_answers(self._client, most_bytes)
        self._max_message_bytes = max_message_bytes
        self._retrying = RetryingClient(address, stop, on_trouble=on_trouble)
        self._node = flower.Node(node_id=0)
        self._is_connected = False
        self._configs: dict[int, RunConfig] = {}
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def connect(self, last_node_id: int | None) -> int:
        """Join the server's nodes.

        Args:
            last_node_id: of this device's last session. A killed session still counts as present
                for a minute, and the device is not let in again as new; a heartbeat of that
                session continues it.

        Returns:
            The device's node id.

        Raises:
            EnrolmentError: the server does not know this device, or is not the pinned one.
            Stopped: while the server could not be reached.
        """
        if last_node_id is None or not self._goes_on(last_node_id):
            self._node = flower.Node(node_id=self._activated())
        self._is_connected = True
        if not self._heart.is_alive():
            self._heart.start()
        return int(self._node.node_id)

    def receive(self) -> flower.Message | None:
        """The next message for this device, complete; None if there is none.

        Raises:
            EnrolmentError: the server no longer accepts this device.
            RunOver: the run ended while its message was fetched.
            MessageLost: there was one, and it could not be read.
        """
        answer = self._call(self._client.PullMessages, flower.PullMessagesRequest(node=self._node))
        if not answer.messages_list:
            return None
        guard = guard_of(self._max_message_bytes)
        with _losing("a message could not be read"):
            tree, run_id = answer.message_object_trees[0], answer.messages_list[0].metadata.run_id
            guard.look_at(tree)
            fetch = flower.make_pull_object_fn_protobuf(
                self._caller("PullObject"), self._node, run_id
            )
            confirm = flower.make_confirm_message_received_fn_protobuf(
                self._caller("ConfirmMessageReceived"), self._node, run_id
            )

            def fetched(object_id: str) -> bytes:
                content = fetch(object_id)
                guard.take(object_id, content)
                return content

            def confirmed(object_id: str) -> None:
                # All objects are there, and nothing has been built from them yet.
                guard.check_whole()
                confirm(object_id)

            message = flower.pull_and_inflate_object_from_tree(
                tree,
                fetched,
                confirmed,
                return_type=flower.Message,
                max_time=_OBJECTS_TIMEOUT_S,
                initial_backoff=FIRST_LOOK_S,
                backoff_cap=1.0,
            )
        # Left out of the object, which is named by its hash.
        message.metadata.__dict__["_message_id"] = tree.object_id
        identity = flower.TaskIdentity
        identity.task_id, identity.run_id, identity.node_id = 0, run_id, self._node.node_id
        return message

    def run_config(self, run_id: int) -> RunConfig:
        """What the server says a run is; asked again if another run was asked about meanwhile."""
        if run_id not in self._configs:
            request = flower.GetRunRequest(node=self._node, run_id=run_id)
            answer = self._call(self._client.GetRun, request)
            # The last one only: a server could begin any number of runs.
            self._configs = {run_id: dict(flower.run_from_proto(answer.run).override_config)}
        return self._configs[run_id]

    def send(self, reply: flower.Message, seconds: float) -> None:
        """Hand a reply over, whole.

        Args:
            reply: to a message from `receive`.
            seconds: how long it took.

        Raises:
            RunOver: the server no longer waits for it.
            MessageLost: the server did not accept it.
        """
        run_id = reply.metadata.run_id
        reply.metadata.__dict__["_message_id"] = reply.object_id
        proto = flower.message_to_proto(flower.remove_content_from_message(reply))
        with _losing("the server did not take a reply"), flower.no_object_id_recompute():
            answer = self._call(
                self._client.PushMessages,
                flower.PushMessagesRequest(
                    node=self._node,
                    messages_list=[proto],
                    message_object_trees=[flower.get_object_tree(reply)],
                    clientapp_runtime_list=[seconds],
                ),
            )
            flower.push_objects(
                flower.get_all_nested_objects(reply),
                flower.make_push_object_fn_protobuf(
                    self._caller("PushObject"), self._node, run_id, answer.session_id
                ),
                object_ids_to_push=set(answer.objects_to_push),
            )

    def close(self) -> None:
        """Sign off, if the server can be reached, and close the connection."""
        self._ended.set()
        if self._is_connected:
            request = flower.DeactivateNodeRequest(node_id=self._node.node_id)
            # Without it the device is counted as gone when its heartbeats stop.
            with contextlib.suppress(httpx.HTTPError, ValueError, RunError):
                self._client.DeactivateNode(request)
            self._is_connected = False
        self._client.close()

    def _goes_on(self, node_id: int) -> bool:
        node = flower.Node(node_id=node_id)
        request = flower.SendNodeHeartbeatRequest(
            node=node, heartbeat_interval=flower.HEARTBEAT_DEFAULT_INTERVAL
        )
        try:
            accepted = self._retrying.call(self._client.SendNodeHeartbeat, request).success
        except Rejected:
            return False
        self._node = node
        return bool(accepted)

    def _activated(self) -> int:
        request = flower.ActivateNodeRequest(
            public_key=flower.public_key_to_bytes(self._public_key),
            heartbeat_interval=flower.HEARTBEAT_DEFAULT_INTERVAL,
        )
        try:
            return int(self._retrying.call(self._client.ActivateNode, request).node_id)
        except Rejected as error:
            if error.status == _UNAUTHORIZED:
                raise EnrolmentError(
                    f"{self._address} does not accept this device's signature ({error})",
                    hint="compare the clocks of both machines",
                ) from error
            raise EnrolmentError(
                f"{self._address} does not know this device: it was not approved yet or was "
                "revoked",
                hint="the server's operator approves it with: calyx server approve DIR REQUEST",
            ) from error

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return self._retrying.call(method, request)
        except AnswerRefused as error:
            raise MessageLost(str(error), hint=error.hint) from error
        except Rejected as error:
            if error.status == _UNAUTHORIZED:
                raise EnrolmentError(
                    f"{self._address} does not accept this device any more: its operator has "
                    "revoked it, or the clocks of the two machines differ",
                    hint="compare the clocks, and ask the server's operator",
                ) from error
            if error.status == _FORBIDDEN:
                raise RunOver from error
            raise

    def _caller(self, method: str) -> Callable[[Any], Any]:
        bound = getattr(self._client, method)
        return lambda request: self._call(bound, request)

    def _beat(self) -> None:
        """Say every few seconds that this device is present, even while it trains."""
        request = flower.SendNodeHeartbeatRequest(
            node=self._node, heartbeat_interval=flower.HEARTBEAT_DEFAULT_INTERVAL
        )
        while not self._ended.wait(_HEARTBEAT_S):
            began = time.monotonic()
            try:
                self._client.SendNodeHeartbeat(request)
            except (httpx.HTTPError, RunError):
                # Calls of the main thread report a lost network.
                self._ended.wait(max(0.0, 1.0 - (time.monotonic() - began)))


@contextlib.contextmanager
def _losing(what: str) -> Iterator[None]:
    """Turn any failure with one message into the loss of that message alone.

    The server may send anything, and Flower raises many kinds of exceptions when it reads it.
    """
    try:
        yield
    except (RunOver, EnrolmentError, Stopped):
        raise
    except CalyxError as error:
        raise MessageLost(f"{what}: {error}", hint=error.hint) from error
    except Exception as error:
        raise MessageLost(f"{what}: {type(error).__name__}") from error
