"""Flower's grid of a ServerApp, with limits on what devices send."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import httpx
from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.error import FlowerError
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, inflate_object_from_contents
from flwr.superlink.grid import HttpGrid

from calyx.shared.errors import CalyxError
from calyx.shared.protocol.flower.http_retry import FIRST_LOOK_S
from calyx.shared.protocol.flower.interceptors import SecretHttpInterceptor
from calyx.shared.protocol.refusals import Refusal

# How long an object may take after it was announced.
UPLOAD_S = 30.0


class Guard(Protocol):
    """Counts what a message takes; see `calyx.shared.protocol.message_size`."""

    def look_at(self, tree: ObjectTree) -> None: ...
    def take(self, object_id: str, content: bytes) -> None: ...
    def check_whole(self) -> None: ...


class ServerGrid(HttpGrid):
    """Flower's grid of a ServerApp, with a look at all messages before they go and as they come.

    Flower's own reads a reply without a limit, ends the run if it cannot, and believes the reply
    whom it is from: what a device hands over is looked at when it does, but the reply is made of an
    object that comes later and has a head of its own.

    Args:
        address: host:port.
        root_certificate: PEM.
        token: of the task.
        secret: see `SecretHttpInterceptor`.
        before_sending: called with the messages of each push.
        new_guard: makes what counts one reply.
    """

    def __init__(
        self,
        address: str,
        root_certificate: bytes,
        token: str,
        secret: str,
        before_sending: Callable[[Sequence[Message]], None],
        new_guard: Callable[[], Guard],
    ) -> None:
        super().__init__(address, False, root_certificate, token=token)
        self._secret, self._before_sending = secret, before_sending
        self._new_guard = new_guard

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send them."""
        leaving = list(messages)
        if leaving:
            self._before_sending(leaving)
        return super().push_messages(leaving)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that are there. One that cannot be read is an error of its sender alone."""
        client = self._runtime_client
        answer = client.PullMessages(PullAppMessagesRequest(message_ids=message_ids))
        return [
            self._reply(about.metadata, tree)
            for about, tree in zip(answer.messages_list, answer.message_object_trees, strict=True)
        ]

    def _reply(self, about: Any, tree: ObjectTree) -> Message:
        """The reply that the SuperLink has taken in, with a head as it was looked at then."""
        confirm = ConfirmMessageReceivedRequest(
            node=self.node, run_id=about.run_id, message_object_id=about.message_id
        )
        try:
            contents = self._contents(about.run_id, tree)
            self._runtime_client.ConfirmMessageReceived(confirm)
            message = inflate_object_from_contents(about.message_id, contents)
            if not isinstance(message, Message):
                raise TypeError("it is no message")
            told = message.metadata
            if any(getattr(told, name) != getattr(about, name) for name in _SEEN):
                raise CalyxError("its head is not the one that was handed over with it")
        except ObjectPullError as error:
            reason = f"its reply did not come whole: {error}"
            # As Flower: not an answer of the device, which may be away.
            return _unread(about, self.node.node_id, ErrorCode.MESSAGE_UNAVAILABLE, reason)
        except (httpx.HTTPError, FlowerError):
            raise  # the server's own trouble, and not the device's
        except Exception as error:  # a device may send anything, and Flower reads it in many ways
            text = error.full_text if isinstance(error, CalyxError) else type(error).__name__
            # It is read once; without this it would be kept until the run is over.
            self._runtime_client.ConfirmMessageReceived(confirm)
            return _unread(about, about.src_node_id, Refusal.UNFIT, f"unreadable reply: {text}")
        told.__dict__["_message_id"] = about.message_id
        return message

    def _contents(self, run_id: int, tree: ObjectTree) -> dict[str, bytes]:
        guard = self._new_guard()
        guard.look_at(tree)
        fetch = make_pull_object_fn_protobuf(self._runtime_client.PullObject, self.node, run_id)

        def fetched(object_id: str) -> bytes:
            content = fetch(object_id)
            guard.take(object_id, content)
            return content

        ids = [part.object_id for part in iterate_object_tree(tree)]
        contents = inflatable_utils.pull_objects(ids, fetched)
        guard.check_whole()
        return contents

    def _connect(self) -> None:
        super()._connect()
        assert self._client is not None
        self._client._interceptors += (SecretHttpInterceptor(self._secret),)


# What the SuperLink has compared with the message that is answered, and with who answers.
_SEEN = ("run_id", "src_node_id", "dst_node_id", "reply_to_message_id")


def _unread(about: Any, source: int, code: int, reason: str) -> Message:
    """An error in the place of a reply."""
    metadata = Metadata(
        run_id=about.run_id,
        message_id=about.message_id,
        src_node_id=source,
        dst_node_id=about.dst_node_id,
        reply_to_message_id=about.reply_to_message_id,
        group_id=about.group_id,
        created_at=about.created_at,
        ttl=about.ttl,
        message_type=about.message_type,
    )
    return make_message(metadata=metadata, error=Error(code=int(code), reason=reason))


def server_grid(
    address: str,
    root_certificate: bytes,
    token: str,
    secret: str,
    before_sending: Callable[[Sequence[Message]], None],
    new_guard: Callable[[], Guard],
) -> ServerGrid:
    """The grid of a ServerApp that looks again soon, and does not wait for what never comes.

    A reply is announced before its arrays are there. Flower's grid tries, fails, and then waits
    at least a second. Of a device that died while it sent them it waits for three minutes, and
    holds up the round of all. There are no arguments for that, so the defaults are exchanged.
    """
    defaults = inflatable_utils.pull_objects.__kwdefaults__
    assert defaults is not None
    defaults |= {"initial_backoff": FIRST_LOOK_S, "backoff_cap": 1.0, "max_time": UPLOAD_S}
    return ServerGrid(address, root_certificate, token, secret, before_sending, new_guard)
