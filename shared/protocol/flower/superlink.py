"""Flower's SuperLink as an application, and what devices may call of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.fleet_pb2 import PushMessagesRequest
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from calyx.shared.errors import RunError


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
        wrong.append("anyone could run a ServerApp")
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
