"""Whether the installed Flower is the one that this folder was written for.

Flower may change its internals without notice. `check_flower` compares what they look like with
what the code that calls them was written for, so that an upgrade fails at once and with a name.
"""

from __future__ import annotations

import inspect
from importlib.metadata import version
from typing import Any

from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import Metadata as MessageMetadata
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PushTaskOutputRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_body,
    get_object_head_values_from_object_content,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    inflate_object_from_contents,
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.superlink.grid import HttpGrid
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import (
    NodeAuthHttpInterceptor as TimeStampInterceptor,
)
from packaging.specifiers import SpecifierSet

from calyx.shared.errors import RunError
from calyx.shared.protocol.signatures.call import KEY_HEADER, TIME_HEADER

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


def check_flower() -> None:
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
    """What looks different from what this folder was written for; empty if nothing does."""
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
