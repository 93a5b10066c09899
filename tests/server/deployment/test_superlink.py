"""The gate between the SuperLink and all callers of its port; Flower's own process, over TLS."""

from __future__ import annotations

import hashlib
import json
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message, MetricRecord, RecordDict

from bench.deployment_harness import free_port
from calyx.server.deployment import handover, setup, submission
from calyx.server.deployment.claim import Task
from calyx.server.deployment.control import Control
from calyx.server.deployment.executor import Executor
from calyx.server.deployment.folder import ServerFolder
from calyx.server.deployment.submission import Submission
from calyx.server.deployment.superlink.gate import Limits
from calyx.server.deployment.superlink.process import wait_until_healthy
from calyx.server.deployment.supervisor import environment, python_module
from calyx.shared.config.load import build, from_settings, to_run_config, to_toml
from calyx.shared.protocol.flower import internals as flower
from calyx.shared.protocol.flower.bundle import bundle_hash
from calyx.shared.protocol.flower.interceptors import NodeAuthHttpInterceptor
from calyx.shared.protocol.flower.server_grid import ServerGrid, server_grid
from calyx.shared.protocol.message_size import SizeGuard
from calyx.shared.protocol.refusals import read_failure
from calyx.shared.protocol.signatures.call import (
    BODY_HEADER,
    KEY_HEADER,
    SIGNATURE_HEADER,
    TIME_HEADER,
    call_headers,
)
from calyx.simulations.engines.grid import take_identity
from tests.server.deployment.unfinished import LENGTH, resident, unfinished

CONFIG = build(from_settings(["training.rounds=1"]))
HEARTBEAT = "/v1/fleet/send-node-heartbeat"


@dataclass(frozen=True)
class Device:
    """A key, and the node that it was registered as."""

    key: ec.EllipticCurvePrivateKey
    node: int


@dataclass(frozen=True)
class Up:
    """A SuperLink that runs, as `calyx server up` starts it."""

    folder: ServerFolder
    pid: int

    def fleet(self, key: ec.EllipticCurvePrivateKey) -> flower.FleetHttpClient:
        return flower.FleetHttpClient.from_server_address(
            self.folder.local_address,
            False,
            self.folder.ca_path.read_bytes(),
            interceptors=[
                flower.RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(key, key.public_key()),
            ],
        )

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> int:
        said = {"content-type": "application/protobuf", **headers}
        with httpx.Client(verify=self.trusted(), timeout=20) as client:
            url = f"https://{self.folder.local_address}{path}"
            return client.post(url, content=body, headers=said).status_code

    def trusted(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.folder.ca_path)

    def device(self) -> Device:
        key = ec.generate_private_key(ec.SECP384R1())
        with Control(self.folder) as control:
            return Device(key, control.register(key.public_key()))


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    directory = tmp_path_factory.mktemp("superlink") / "server"
    setup.init(directory, port=free_port())
    folder = ServerFolder(directory)
    folder.control_secret_path.write_text("ab" * 32)
    with folder.exclusive(), (folder.log_dir / "superlink.log").open("wb") as log:
        process = subprocess.Popen(
            python_module("calyx.server.deployment.superlink.process", str(directory)),
            env=environment(folder.flower_home),
            cwd=folder.state_dir,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            assert wait_until_healthy(folder, lambda: process.poll() is None, 60)
            yield Up(folder, process.pid)
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(autouse=True)
def _identity() -> None:
    take_identity()


def signed(device: Device, path: str, body: bytes, age_s: float = 0.0) -> dict[str, str]:
    """The headers of a call of a device."""
    request = httpx.Request("POST", f"https://server{path}", content=body)
    interceptor = NodeAuthHttpInterceptor(device.key, device.key.public_key())
    interceptor.intercept(SimpleNamespace(request=request), lambda _: httpx.Response(200))
    names = (KEY_HEADER, TIME_HEADER, "flwr-signature", BODY_HEADER, SIGNATURE_HEADER)
    made = {name: request.headers[name] for name in names}
    if age_s:  # Flower's own signature is not what is looked at first
        made[TIME_HEADER] = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat()
        made |= call_headers(device.key, path, made[TIME_HEADER], body)
    return made


def heartbeat(device: Device) -> bytes:
    request = flower.SendNodeHeartbeatRequest(
        node=flower.Node(node_id=device.node), heartbeat_interval=30.0
    )
    return bytes(request.SerializeToString())


LOCAL: dict[str, Callable[[], Any]] = {
    "register-node": lambda: flower.RegisterNodeRequest(
        public_key=flower.public_key_to_bytes(ec.generate_private_key(ec.SECP384R1()).public_key())
    ),
    "list-nodes": flower.ListNodesRequest,
    "list-runs": flower.ListRunsRequest,
    "start-run": flower.StartRunRequest,
    "stop-run": lambda: flower.StopRunRequest(run_id=1),
}


@pytest.mark.parametrize("call", LOCAL)
def test_local_user_with_the_ca_file_alone_can_do_nothing(up: Up, call: str) -> None:
    body = bytes(LOCAL[call]().SerializeToString())
    assert up.post(f"/v1/control/{call}", body, {}) == 403
    for guess in ("", "ab" * 31, "AB" * 32, "é" * 10):
        headers = {"calyx-secret": guess}
        encoded = {k: v.encode("latin-1") for k, v in headers.items()}
        assert up.post(f"/v1/control/{call}", body, encoded) == 403  # type: ignore[arg-type]
    with Control(up.folder) as control:
        assert isinstance(control.nodes(), list)


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/runtime/acquire-task", "/v1/runtime/push-messages", "/v1/runtime/pull-messages"),
        *("/v1/fleet/register-node", "/v1/fleet/unregister-node", "/v1/fleet/get-fab"),
        *("/v1/fleet/../control/list-nodes", "/v1/fleet//pull-messages", "/", "/docs"),
    ],
)
def test_nothing_else_answers_either(up: Up, path: str) -> None:
    assert up.post(path, b"", {}) in (403, 404)


def test_device_makes_its_own_calls_and_no_others(up: Up) -> None:
    device, other = up.device(), up.device()
    body, path = heartbeat(device), HEARTBEAT
    headers = signed(device, path, body)
    assert up.post(path, body, headers) == 200
    # The same call again, another call, another body, another key.
    assert up.post(path, body, headers) == 401
    again = signed(device, path, body)
    pull = flower.PullMessagesRequest(node=flower.Node(node_id=device.node)).SerializeToString()
    assert up.post("/v1/fleet/pull-messages", pull, again) == 401
    assert up.post("/v1/fleet/pull-messages", body, again) == 401
    assert up.post(path, heartbeat(other), again) == 401
    assert up.post(path, body, {**again, KEY_HEADER: signed(other, path, body)[KEY_HEADER]}) == 401
    assert up.post(path, body, {**again, BODY_HEADER: hashlib.sha256(b"").hexdigest()}) == 401
    for missing in again:
        assert up.post(path, body, {k: v for k, v in again.items() if k != missing}) == 401
    # As another node, and for a key that no one registered.
    assert up.post(path, heartbeat(other), signed(device, path, heartbeat(other))) == 401
    stranger = Device(ec.generate_private_key(ec.SECP384R1()), device.node)
    assert up.post(path, body, signed(stranger, path, body)) == 401


def test_old_and_early_calls_are_refused(up: Up) -> None:
    device = up.device()
    body = heartbeat(device)
    for age_s in (400.0, -60.0):
        assert up.post(HEARTBEAT, body, signed(device, HEARTBEAT, body, age_s)) == 401
    # From before this process began: it does not know whether that call was already made.
    assert up.post(HEARTBEAT, body, signed(device, HEARTBEAT, body, 290.0)) == 503


def test_unregistered_device_is_refused_at_once(up: Up) -> None:
    device = up.device()
    body = heartbeat(device)
    assert up.post(HEARTBEAT, body, signed(device, HEARTBEAT, body)) == 200
    with Control(up.folder) as control:
        control.unregister(device.node)
    assert up.post(HEARTBEAT, body, signed(device, HEARTBEAT, body)) == 401
    activate = flower.ActivateNodeRequest(
        public_key=flower.public_key_to_bytes(device.key.public_key()), heartbeat_interval=30.0
    ).SerializeToString()
    path = "/v1/fleet/activate-node"
    assert up.post(path, activate, signed(device, path, activate)) not in (200, 401)


@pytest.fixture
def executor(up: Up) -> Iterator[Executor]:
    made = Executor(up.folder)
    yield made
    made._claims._client.close()


@pytest.fixture
def running(up: Up, executor: Executor) -> Iterator[tuple[int, Executor, Task]]:
    """A running Flower run, like one that the executor has taken."""
    with Control(up.folder) as control:
        run_id = control.start_run(handover._bundle("none", "x" * 64), to_run_config(CONFIG))
        token = executor._claims.next_token()
        with executor._claims.runtime(token) as client:
            given = client.PullTaskInput(flower.PullTaskInputRequest())
        task = Task(token, int(given.task_id), run_id, int(given.context.node_id), "", "")
        yield run_id, executor, task
        control.stop_run(run_id)


def grid_of(running: tuple[int, Executor, Task], request: pytest.FixtureRequest) -> ServerGrid:
    """The grid of a run's ServerApp, which takes replies of up to a megabyte."""
    run_id, executor, task = running
    grid = server_grid(
        executor._address,
        executor._root,
        task.token,
        executor._secret,
        lambda messages: None,
        lambda: SizeGuard(10**6, "it is too large"),
    )
    request.addfinalizer(grid.close)
    grid.set_run(flower.Run.create_empty(run_id=run_id))
    return grid


def an_object(kind: str, children: Sequence[str], body: bytes) -> bytes:
    """An object as it travels."""
    return f"{kind} {','.join(children)} {len(body)}".encode() + b"\0" + body


def forged_heads(reply: Message, other: int) -> dict[str, list[bytes]]:
    """Objects of replies that a device may make up, the root first, children before their use."""
    reply.metadata.__dict__["_message_id"] = ""
    root = reply.deflate()
    body = root.split(b"\0", 1)[1]
    about = flower.message_to_proto(flower.remove_content_from_message(reply))
    about.metadata.src_node_id = other
    about.ClearField("content")
    content = RecordDict().deflate()
    of = bundle_hash  # SHA-256, hex
    chunk = an_object("ArrayChunk", [], b"a" * 1000)
    array = an_object(
        "Array",
        [of(chunk)],
        json.dumps(
            {
                "dtype": "uint8",
                "shape": [10**6],
                "stype": "numpy.ndarray",
                "arraychunk_ids": [0] * 2000,
            }
        ).encode(),
    )
    values = MetricRecord({"a": [1] * (10**5 + 1)}).deflate()
    nonsense = an_object("RecordDict", [], b"[" * 5000)

    def message_of(child: bytes) -> bytes:
        return an_object("Message", [of(child)], body)

    def dict_of(child: bytes) -> bytes:
        return an_object("RecordDict", [of(child)], json.dumps({"x": of(child)}).encode())

    arrays = an_object("ArrayRecord", [of(array)], json.dumps({"w": of(array)}).encode())
    return {
        "from another": [an_object("Message", [of(content)], about.SerializeToString()), content],
        "no text": [message_of(nonsense), nonsense],
        "no message": [content],
        "swollen": [message_of(dict_of(arrays)), dict_of(arrays), arrays, array, chunk],
        "many values": [message_of(dict_of(values)), dict_of(values), values],
    }


def test_reply_that_cannot_be_read_or_lies_about_its_sender_is_its_senders_error_alone(
    up: Up, running: tuple[int, Executor, Task], request: pytest.FixtureRequest
) -> None:
    """The head that the SuperLink has seen is beside the objects; the reply's head is in them."""
    run_id, _, _ = running
    device, other = up.device(), up.device()
    grid, identity = grid_of(running, request), flower.TaskIdentity
    for fleet, key in ((up.fleet(d.key), d.key.public_key()) for d in (device, other)):
        request.addfinalizer(fleet.close)
        fleet.ActivateNode(
            flower.ActivateNodeRequest(
                public_key=flower.public_key_to_bytes(key), heartbeat_interval=30
            )
        )
    for number, kind in enumerate(
        ("from another", "no text", "no message", "swollen", "many values")
    ):
        identity.task_id, identity.run_id, identity.node_id = 0, run_id, 1
        question = Message(RecordDict(), device.node, "train", group_id=str(number))
        (asked,) = grid.push_messages([question])
        identity.node_id = device.node
        objects = forged_heads(Message(RecordDict(), reply_to=question), other.node)[kind]
        honest = Message(RecordDict(), reply_to=question)
        proto = flower.message_to_proto(flower.remove_content_from_message(honest))
        ids = [bundle_hash(content) for content in objects]
        proto.metadata.message_id = ids[0]
        node = flower.Node(node_id=device.node)
        tree = flower.ObjectTree(
            object_id=ids[0], children=[flower.ObjectTree(object_id=i) for i in ids[1:]]
        )
        told = flower.PushMessagesRequest(
            node=node, messages_list=[proto], message_object_trees=[tree]
        )
        fleet = up.fleet(device.key)
        request.addfinalizer(fleet.close)
        answer = fleet.PushMessages(told)
        for name, content in zip(ids, objects, strict=True):
            stored = fleet.PushObject(
                flower.PushObjectRequest(
                    node=node,
                    run_id=run_id,
                    object_id=name,
                    object_content=content,
                    session_id=answer.session_id,
                )
            )
            assert stored.stored or name not in answer.objects_to_push, kind
        identity.node_id = 1
        (reply,) = grid.pull_messages([asked])
        assert reply.has_error() and reply.metadata.src_node_id == device.node, kind
        failure = read_failure(reply)
        assert failure.kind.is_final and "unreadable reply" in failure.reason, (kind, failure)


def pushed(up: Up, device: Device, message: Message, node: int | None = None) -> int:
    """Hand a message over as this device; returns the HTTP status."""
    message.metadata.__dict__["_message_id"] = message.object_id
    proto = flower.message_to_proto(flower.remove_content_from_message(message))
    request = flower.PushMessagesRequest(
        node=flower.Node(node_id=device.node if node is None else node),
        messages_list=[proto],
        message_object_trees=[flower.get_object_tree(message)],
    )
    path, body = "/v1/fleet/push-messages", request.SerializeToString()
    return up.post(path, body, signed(device, path, body))


def test_device_hands_over_replies_of_its_own_and_nothing_in_anybody_elses_name(
    up: Up, running: tuple[int, Executor, Task], request: pytest.FixtureRequest
) -> None:
    run_id = running[0]
    device, victim = up.device(), up.device()
    fleet = up.fleet(victim.key)
    request.addfinalizer(fleet.close)
    fleet.ActivateNode(
        flower.ActivateNodeRequest(
            public_key=flower.public_key_to_bytes(victim.key.public_key()), heartbeat_interval=30
        )
    )
    identity, superlink = flower.TaskIdentity, 1
    identity.task_id, identity.run_id, identity.node_id = 0, run_id, superlink
    injected = Message(RecordDict(), victim.node, "train", group_id="1")
    assert pushed(up, device, injected) == 400
    assert pushed(up, device, injected, victim.node) == 400
    as_reply = Message(RecordDict(), victim.node, "train", group_id="1")
    as_reply.metadata.__dict__["_reply_to_message_id"] = "ab" * 32
    assert pushed(up, device, as_reply) == 400
    own = Message(RecordDict(), victim.node, "train", group_id="1")
    own.metadata.__dict__["_src_node_id"] = device.node
    assert pushed(up, device, own) == 400
    pull = flower.PullMessagesRequest(node=flower.Node(node_id=victim.node))
    assert not fleet.PullMessages(pull).messages_list

    # The server's own access still works, and so does the answer of the device it asked.
    grid = grid_of(running, request)
    (asked,) = grid.push_messages([Message(RecordDict(), victim.node, "train", group_id="1")])
    answer = fleet.PullMessages(pull)
    assert [m.metadata.message_id for m in answer.messages_list] == [asked]
    question = Message(RecordDict(), victim.node, "train", group_id="1")
    question.metadata.__dict__["_message_id"] = asked
    identity.node_id = victim.node
    honest = Message(RecordDict(), reply_to=question)
    honest.metadata.__dict__["_src_node_id"] = device.node  # answers for another one
    assert pushed(up, victim, honest) == 400
    honest = Message(RecordDict(), reply_to=question)
    assert pushed(up, device, honest) == 400
    assert pushed(up, victim, honest) == 200


def test_bundle_that_names_a_prepared_run_is_not_carried_out(up: Up, executor: Executor) -> None:
    """Even if someone could start a Flower run: only what was handed over is adopted."""
    path = up.folder.run_dir("prepared")
    path.mkdir()
    (path / "config.toml").write_text(to_toml(CONFIG))
    waiting = handover.hand_over(up.folder, Submission("prepared", "submitted", 0, 0), CONFIG)
    carried_out: list[Task] = []
    executor._serve_run = carried_out.append  # type: ignore[method-assign,assignment]

    honest = executor._claims.next_token()
    with Control(up.folder) as control:
        for ticket in ("", "x" * 64, waiting.ticket_digest):
            foreign = handover._bundle("prepared", ticket)
            control.start_run(foreign, to_run_config(CONFIG))
            executor._begin(executor._claims.next_token())
    assert not carried_out
    assert submission.read_submission(up.folder, "prepared") == waiting
    executor._begin(honest)
    assert [task.run for task in carried_out] == ["prepared"]
    done = submission.read_submission(up.folder, "prepared")
    assert done.state == "completed" and done.flower_run_id == carried_out[0].run_id
    # The ticket that was seen in the meantime is valid only for that Flower run.
    copy = handover._bundle("prepared", carried_out[0].ticket)
    submission.store(up.folder, replace(done, state="running"))
    with Control(up.folder) as control:
        control.start_run(copy, to_run_config(CONFIG))
    executor._begin(executor._claims.next_token())
    assert len(carried_out) == 1
    assert submission.read_submission(up.folder, "prepared").state == "running"


def test_unfinished_bodies_take_no_memory_and_no_turn(up: Up) -> None:
    """48 of 15 MB: strangers', and a registered device's, which may hold two objects and a half."""
    device, path = up.device(), "/v1/fleet/push-object"
    body, before = heartbeat(device), resident(up.pid)
    strangers: list[dict[str, str]] = [{} for _ in range(48)]
    with unfinished(up.folder.local_address, up.folder.ca_path, path, strangers, 10) as sent:
        assert up.post(HEARTBEAT, body, signed(device, HEARTBEAT, body)) == 200
        assert resident(up.pid) - before < 60_000_000, sent
    own = [{**signed(device, path, b"%d" % n)} for n in range(48)]
    with unfinished(up.folder.local_address, up.folder.ca_path, path, own, 10) as sent:
        assert up.post(HEARTBEAT, body, signed(device, HEARTBEAT, body)) == 200
        grown = resident(up.pid) - before
        # Some of the sockets' buffers stays; the bodies of all would be 720 MB.
        assert grown < 60_000_000 + 2 * Limits().device_bytes, (grown, sent)
    assert any(sent_bytes > LENGTH / 2 for sent_bytes in sent)
    # What was held for them is free again.
    assert up.post(path, body, signed(device, path, body)) != 503


@pytest.mark.parametrize(
    ("path", "length"),
    [
        (HEARTBEAT, 2**16 + 1),
        ("/v1/fleet/push-messages", 2**20 + 1),
        ("/v1/fleet/push-object", 2**24 + 1),
    ],
)
def test_a_body_that_no_call_needs_is_not_taken_in(up: Up, path: str, length: int) -> None:
    device = up.device()
    body = bytes(length)
    assert up.post(path, body, signed(device, path, body)) == 413
