"""Every private internal of Flower that Calyx touches, and nothing else of it anywhere else.

Flower promises to keep `flwr.app`, `flwr.serverapp`, `flwr.clientapp`, its commands and its wire
protocol. A device that runs only its own code, and a server that runs only its own, need more:
the clients of the Fleet, Runtime and Control APIs and how a message becomes objects. They are
imported here, for the versions in `RANGE` alone, and `check` compares what they look like with
what this module was written for, so that an upgrade fails at once and with a name
(`docs/adr/0014`).
"""

from __future__ import annotations

import hashlib
import inspect
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Array, ConfigRecord, Error, Message, Metadata, MetricRecord
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import (
    FAB_CONFIG_FILE,
    HEARTBEAT_DEFAULT_INTERVAL,
    SUPERLINK_NODE_ID,
    TIMESTAMP_HEADER,
    ErrorCode,
    SubStatus,
)
from flwr.common.serde import (
    context_from_proto,
    fab_from_proto,
    fab_to_proto,
    message_to_proto,
    run_from_proto,
    user_config_to_proto,
)
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.message_pb2 import Metadata as MessageMetadata
from flwr.proto.node_pb2 import Node
from flwr.proto.recorddict_pb2 import ConfigRecord as ConfigRecordProto
from flwr.proto.recorddict_pb2 import MetricRecord as MetricRecordProto
from flwr.proto.run_pb2 import GetRunRequest
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, TaskType
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.error import FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_body,
    get_object_head_values_from_object_content,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    inflate_object_from_contents,
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import (
    NodeAuthHttpInterceptor as TimeStampInterceptor,
)
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from packaging.specifiers import SpecifierSet

from calyx.shared.errors import CalyxError, RunError
from calyx.shared.protocol.refusals import Refusal
from calyx.shared.protocol.signatures.call import KEY_HEADER, TIME_HEADER, call_headers

RANGE = ">=1.41,<1.43"

# What each of them looked like when the code that calls it was written: parameters of functions,
# fields of protobuf messages.
_LOOKS: tuple[tuple[Any, str], ...] = (
    (
        ControlHttpClient.from_server_address,
        "server_address insecure root_certificates interceptors retry_invoker",
    ),
    (
        FleetHttpClient.from_server_address,
        "server_address insecure root_certificates interceptors retry_invoker",
    ),
    (
        RuntimeHttpClient.from_server_address,
        "server_address insecure root_certificates interceptors retry_invoker",
    ),
    (HttpGrid, "runtime_api_address insecure root_certificates token"),
    (TimeStampInterceptor, "private_key public_key"),
    (TimeStampInterceptor.intercept, "context call_next"),
    (HttpGrid.push_messages, "messages"),
    (get_object_body, "object_content cls"),
    (get_object_head_values_from_object_content, "object_content"),
    (RuntimeTokenHttpInterceptor, "token"),
    (RuntimeVersionHttpInterceptor, "component_name"),
    (SuperExecAuthHttpInterceptor, "master_secret protected_methods"),
    (get_all_nested_objects, "obj"),
    (get_object_tree, "obj"),
    (make_confirm_message_received_fn_protobuf, "confirm_message_received_protobuf node run_id"),
    (make_pull_object_fn_protobuf, "pull_object_protobuf node run_id"),
    (make_push_object_fn_protobuf, "push_object_protobuf node run_id session_id"),
    (
        pull_and_inflate_object_from_tree,
        "object_tree pull_object_fn confirm_object_received_fn return_type max_concurrent_pulls "
        "max_time max_tries_per_object initial_backoff backoff_cap",
    ),
    (
        inflatable_utils.pull_objects,
        "object_ids pull_object_fn max_concurrent_pulls max_time max_tries_per_object "
        "initial_backoff backoff_cap",
    ),
    (push_objects, "objects push_object_fn object_ids_to_push keep_objects max_concurrent_pushes"),
    (remove_content_from_message, "message"),
    (make_message, "metadata content error"),
    (inflate_object_from_contents, "object_id object_contents keep_object_contents objects"),
    (iterate_object_tree, "tree"),
)
_FIELDS: tuple[tuple[Any, str], ...] = (
    (ActivateNodeRequest, "public_key heartbeat_interval"),
    (AcquireTaskRequest, "supported_task_types"),
    (PullMessagesRequest, "node message_ids"),
    (PushMessagesRequest, "node messages_list message_object_trees clientapp_runtime_list"),
    (MessageMetadata, "message_id src_node_id dst_node_id reply_to_message_id"),
    (PushTaskOutputRequest, "context sub_status details clientapp_runtime"),
    (SendNodeHeartbeatRequest, "node heartbeat_interval"),
)


def check() -> None:
    """Refuse a Flower that this module was not written for.

    Raises:
        RunError: another version, or one that looks different; it names what changed.
    """
    found = version("flwr")
    if not SpecifierSet(RANGE).contains(found, prereleases=True):
        raise RunError(
            f"Flower {found} is installed; Calyx needs flwr{RANGE}",
            hint=f"install it with: pip install 'flwr{RANGE}'",
        )
    if changed := list(differences()):
        raise RunError(
            f"Flower {found} differs from the version that Calyx was made for "
            f"({'; '.join(changed)})",
            hint="install an older flwr, or a newer Calyx",
        )


def differences() -> list[str]:
    """What looks different from what this module was written for; empty if nothing does."""
    changed = []
    for thing, expected in _LOOKS:
        found = " ".join(n for n in inspect.signature(thing).parameters if n != "self")
        if found != expected:
            changed.append(f"{thing.__qualname__}({found})")
    for message, expected in _FIELDS:
        names = {field.name for field in message.DESCRIPTOR.fields}
        if missing := set(expected.split()) - names:
            changed.append(f"{message.__name__} lacks {', '.join(sorted(missing))}")
    if (FLEET_HTTP_PUBLIC_KEY_HEADER, TIMESTAMP_HEADER) != (KEY_HEADER, TIME_HEADER):
        changed.append("the headers of a signed call")
    return changed


def bundle(files: Mapping[str, bytes]) -> bytes:
    """An app bundle (FAB) of these files."""
    from flwr.cli.build import build_fab_from_files

    return build_fab_from_files(files)[0]


def bundle_config(content: bytes) -> dict[str, Any]:
    """The ``pyproject.toml`` in an app bundle, which nobody is asked to trust.

    Raises:
        ValueError: there is none that can be read.
    """
    from flwr.common.config import get_fab_config

    try:
        return dict(get_fab_config(content))
    except (zipfile.BadZipFile, KeyError, TypeError) as error:
        raise ValueError(f"no app bundle: {error}") from None


def bundle_hash(content: bytes) -> str:
    """The name that Flower gives a bundle."""
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class SuperLinkApp:
    """Flower's SuperLink, not yet served.

    Attributes:
        app: its ASGI application.
        node_of: Flower's number of the device with a public key (PEM); None if there is none, or
            it was unregistered. May be called from any thread.
        log_config: Flower's, for uvicorn.
    """

    app: Any
    node_of: Callable[[bytes], int | None]
    log_config: dict[str, Any]


# What devices call, of all that the Fleet API has.
FLEET_CALLS = frozenset(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "get-run",
        "push-object",
        "pull-object",
        "confirm-message-received",
    )
)


def superlink_app() -> SuperLinkApp:
    """What ``flower-superlink`` would serve; it reads ``sys.argv``.

    Raises:
        RunError: it would let in devices that are not registered, or ServerApps without the
            secret, or has other calls than this module was written for.
    """
    from flwr.supercore.http_logging import get_uvicorn_log_config
    from flwr.supercore.logger import console_handler
    from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
    from flwr.superlink.cli.flower_superlink import (
        SuperLinkLifespan,
        _parse_superlink_lifespan_config,
    )
    from flwr.superlink.main import create_app
    from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware

    app = create_app(_parse_superlink_lifespan_config(), SuperLinkLifespan)
    calls = {path for method, path in PROTOBUF_REQUEST_TYPES if method == "POST"}
    wrong = [f"no call {path}" for path in sorted(FLEET_CALLS - calls)]
    guards: list[Any] = [guard.cls for guard in app.user_middleware]
    if NodeAuthMiddleware not in guards:
        wrong.append("calls of devices are not authenticated")
    if getattr(app.state, "enable_supernode_auth", None) is not True:
        wrong.append("devices can register themselves")
    if not getattr(app.state, "superexec_auth_secret", None):
        wrong.append("anybody could run a ServerApp")
    if wrong:
        raise RunError(f"Flower's SuperLink is not set up as required: {'; '.join(wrong)}")
    factory = app.state.linkstate_factory

    def node_of(public_key: bytes) -> int | None:
        found = factory.state().get_node_id_by_public_key(public_key)
        return None if found is None else int(found)

    return SuperLinkApp(app, node_of, get_uvicorn_log_config(console_handler.level))


def is_own_reply(body: bytes, node_id: int) -> bool:
    """Whether the body of a push-messages call is one reply of this node to the server.

    Flower looks at who calls, and not at who a message says it is from: a registered device could
    hand over a message of the server's to any other device.
    """
    try:
        request = PushMessagesRequest.FromString(body)
    except DecodeError:
        return False
    if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
        return False
    about = request.messages_list[0].metadata
    return (
        about.src_node_id == node_id
        and about.dst_node_id == SUPERLINK_NODE_ID
        and bool(about.reply_to_message_id)
        and request.message_object_trees[0].object_id == about.message_id
    )


class NodeAuthHttpInterceptor(TimeStampInterceptor):
    """Signs each call: Flower's signature over the time, and ours over all of it.

    Args:
        private_key: the device's.
        public_key: of it.
    """

    def __init__(
        self, private_key: ec.EllipticCurvePrivateKey, public_key: ec.EllipticCurvePublicKey
    ) -> None:
        super().__init__(private_key, public_key)
        self._key = private_key

    def intercept(self, context: Any, call_next: Callable[[Any], httpx.Response]) -> httpx.Response:
        """Add the headers of both."""

        def with_both(stamped: Any) -> httpx.Response:
            request: httpx.Request = stamped.request
            signed_at = request.headers[TIMESTAMP_HEADER]
            path = request.url.path
            request.headers.update(call_headers(self._key, path, signed_at, request.content))
            return call_next(stamped)

        return super().intercept(context, with_both)


class SecretHttpInterceptor:
    """Shows the secret of this server's own processes.

    Args:
        secret: see `calyx.server.deployment.superlink.gate`.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def intercept(self, context: Any, call_next: Callable[[Any], httpx.Response]) -> httpx.Response:
        """Add the header."""
        context.request.headers[SECRET_HEADER] = self._secret
        return call_next(context)


SECRET_HEADER = "calyx-secret"  # noqa: S105 - its name


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


class AnswerRefused(RunError):
    """An answer whose body was not read: it is or may be too long."""


def limit_answers(client: FleetHttpClient, most: Callable[[str], int]) -> None:
    """Have a client refuse an answer before its body is read, if that is or may be too long.

    Args:
        client: whose.
        most: bytes allowed in the answer to a path.
    """
    calls: httpx.Client = client._client

    def look(response: httpx.Response) -> None:
        path, length = response.request.url.path, response.headers.get("content-length", "")
        if response.is_redirect:
            raise AnswerRefused("the server redirects its devices elsewhere, which is not followed")
        if not length.isdigit() and response.is_error:
            # Some proxy's; the call is made again.
            raise httpx.RemoteProtocolError(f"it answered {response.status_code} and no length")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise AnswerRefused("the server answers in a compressed form, of no known size")
        if not length.isdigit():
            raise AnswerRefused("the server does not say how long its answer is")
        if int(length) > most(path):
            raise AnswerRefused(f"the server's answer has {length} bytes; {most(path)} are allowed")

    calls.event_hooks = {"response": [look]}


@dataclass(frozen=True)
class Look:
    """What an object of a message will take in memory, beside its bytes.

    Attributes:
        parts: of an array: the objects it is put together from, each as often as it is used.
        values: of a record of settings or figures: how many it has, those in lists counted one by
            one.
        is_structure: it is neither a record nor data of an array.
    """

    parts: tuple[str, ...] = ()
    values: int = 0
    is_structure: bool = False


def look_into(content: bytes) -> Look:
    """Look at an object before anything is made of it.

    Args:
        content: as fetched.

    Raises:
        ValueError: it cannot be read.
    """
    kind, children, _ = get_object_head_values_from_object_content(content)
    if kind == "Array":
        body = json.loads(get_object_body(content, Array))
        parts = tuple(children[int(index)] for index in body["arraychunk_ids"])
        return Look(parts=parts, is_structure=True)
    if kind in _RECORDS:
        record, proto = _RECORDS[kind]
        try:
            items = proto.FromString(get_object_body(content, record)).items
        except DecodeError as error:
            raise ValueError(f"no record: {error}") from None
        return Look(values=len(items) + sum(map(_in_list, items)))
    return Look(is_structure=kind != "ArrayChunk")


def _in_list(item: Any) -> int:
    kind = item.value.WhichOneof("value") or ""
    return len(getattr(item.value, kind).vals) if kind.endswith("_list") else 0


_RECORDS: dict[str, tuple[Any, Any]] = {
    "ConfigRecord": (ConfigRecord, ConfigRecordProto),
    "MetricRecord": (MetricRecord, MetricRecordProto),
}


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
    holds everybody's round up. There are no arguments for that, so the defaults are exchanged.
    """
    defaults = inflatable_utils.pull_objects.__kwdefaults__
    assert defaults is not None
    defaults |= {"initial_backoff": FIRST_LOOK_S, "backoff_cap": 1.0, "max_time": UPLOAD_S}
    return ServerGrid(address, root_certificate, token, secret, before_sending, new_guard)


# Pause before the second look for an object, and how long one may take after it was announced.
FIRST_LOOK_S, UPLOAD_S = 0.02, 30.0

__all__ = [
    "FAB_CONFIG_FILE",
    "FIRST_LOOK_S",
    "FLEET_CALLS",
    "HEARTBEAT_DEFAULT_INTERVAL",
    "RANGE",
    "SECRET_HEADER",
    "AcquireTaskRequest",
    "ActivateNodeRequest",
    "AnswerRefused",
    "ConfirmMessageReceivedRequest",
    "ControlHttpClient",
    "DeactivateNodeRequest",
    "Fab",
    "FleetHttpClient",
    "FlowerError",
    "GetRunRequest",
    "HttpGrid",
    "ListNodesRequest",
    "ListRunsRequest",
    "Message",
    "Node",
    "NodeAuthHttpInterceptor",
    "ObjectTree",
    "PullMessagesRequest",
    "PullObjectRequest",
    "PullTaskInputRequest",
    "PushMessagesRequest",
    "PushObjectRequest",
    "PushTaskOutputRequest",
    "RegisterNodeRequest",
    "Run",
    "RunNotRunningException",
    "RuntimeHttpClient",
    "RuntimeTokenHttpInterceptor",
    "RuntimeVersionHttpInterceptor",
    "SecretHttpInterceptor",
    "SendNodeHeartbeatRequest",
    "SendTaskHeartbeatRequest",
    "ServerGrid",
    "StartRunRequest",
    "StopRunRequest",
    "SubStatus",
    "SuperExecAuthHttpInterceptor",
    "SuperLinkApp",
    "TaskIdentity",
    "TaskType",
    "UnregisterNodeRequest",
    "bundle",
    "bundle_config",
    "bundle_hash",
    "check",
    "context_from_proto",
    "differences",
    "fab_from_proto",
    "fab_to_proto",
    "get_all_nested_objects",
    "get_object_tree",
    "is_own_reply",
    "limit_answers",
    "look_into",
    "make_confirm_message_received_fn_protobuf",
    "make_pull_object_fn_protobuf",
    "make_push_object_fn_protobuf",
    "message_to_proto",
    "no_object_id_recompute",
    "public_key_to_bytes",
    "pull_and_inflate_object_from_tree",
    "push_objects",
    "remove_content_from_message",
    "run_from_proto",
    "server_grid",
    "superlink_app",
    "user_config_to_proto",
]
