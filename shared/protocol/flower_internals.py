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
import zipfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import FAB_CONFIG_FILE, HEARTBEAT_DEFAULT_INTERVAL, SubStatus
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
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.error import FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
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
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from packaging.specifiers import SpecifierSet

from shared.errors import RunError

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
    (NodeAuthHttpInterceptor, "private_key public_key"),
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
)
_FIELDS: tuple[tuple[Any, str], ...] = (
    (ActivateNodeRequest, "public_key heartbeat_interval"),
    (AcquireTaskRequest, "supported_task_types"),
    (PullMessagesRequest, "node message_ids"),
    (PushMessagesRequest, "node messages_list message_object_trees clientapp_runtime_list"),
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
        raise RunError(f"Flower {found} is installed, Calyx needs flwr{RANGE}; install that one")
    if changed := list(differences()):
        raise RunError(
            f"Flower {found} differs from the one Calyx was made for ({'; '.join(changed)}); "
            "install an older flwr, or a newer Calyx"
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


def superlink_main() -> Callable[[], None]:
    """Flower's ``flower-superlink`` command; it reads ``sys.argv``."""
    from flwr.superlink.cli import flower_superlink

    return flower_superlink


def server_grid(address: str, root_certificate: bytes, token: str) -> HttpGrid:
    """The grid of a ServerApp that looks again soon, and does not wait for what never comes.

    A reply is announced before its arrays are there. Flower's grid tries, fails, and then waits
    at least a second. Of a device that died while it sent them it waits for three minutes, and
    holds everybody's round up. There are no arguments for that, so the defaults are exchanged.
    """
    defaults = inflatable_utils.pull_objects.__kwdefaults__
    assert defaults is not None
    defaults |= {"initial_backoff": FIRST_LOOK_S, "backoff_cap": 1.0, "max_time": UPLOAD_S}
    return HttpGrid(address, False, root_certificate, token=token)


# Pause before the second look for an object, and how long one may take after it was announced.
FIRST_LOOK_S, UPLOAD_S = 0.02, 30.0

__all__ = [
    "FAB_CONFIG_FILE",
    "FIRST_LOOK_S",
    "HEARTBEAT_DEFAULT_INTERVAL",
    "RANGE",
    "AcquireTaskRequest",
    "ActivateNodeRequest",
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
    "SendNodeHeartbeatRequest",
    "SendTaskHeartbeatRequest",
    "StartRunRequest",
    "StopRunRequest",
    "SubStatus",
    "SuperExecAuthHttpInterceptor",
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
    "superlink_main",
    "user_config_to_proto",
]
