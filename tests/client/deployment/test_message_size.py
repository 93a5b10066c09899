"""A message that is too large is not taken in: by what is said of it, by what comes, by what it
would become."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import PullObjectResponse

from calyx.client.deployment.fleet import Fleet, MessageLost
from calyx.client.deployment.message_size import OBJECT_BYTES, guard_of, most_bytes
from calyx.shared.errors import ProtocolError
from calyx.shared.host.certificates import Credentials, issue, make_root
from calyx.shared.protocol.flower import internals as flower
from calyx.simulations.engines.grid import take_identity

Answers = dict[str, Callable[[bytes], tuple[dict[str, str], bytes]]]


@pytest.fixture(autouse=True)
def _identity() -> None:
    take_identity()


class Objects:
    """A message of one array, as a server stores it."""

    def __init__(self, array: np.ndarray) -> None:
        content = RecordDict({"arrays": ArrayRecord({"w": Array(array)})})
        message = Message(content, 5, "train", group_id="1")
        with flower.no_object_id_recompute():
            self.contents = {
                k: o.deflate() for k, o in flower.get_all_nested_objects(message).items()
            }
            self.tree = flower.get_object_tree(message)
            message.metadata.__dict__["_message_id"] = message.object_id
            self.proto = flower.message_to_proto(flower.remove_content_from_message(message))

    def pulled(self, body: bytes) -> tuple[dict[str, str], bytes]:
        wanted = flower.PullObjectRequest.FromString(body).object_id
        answer = PullObjectResponse(
            object_found=True, object_available=True, object_content=self.contents[wanted]
        ).SerializeToString()
        return {"content-length": str(len(answer))}, answer

    def listed(self, body: bytes) -> tuple[dict[str, str], bytes]:
        answer = PullMessagesResponse(
            messages_list=[self.proto], message_object_trees=[self.tree]
        ).SerializeToString()
        return {"content-length": str(len(answer))}, answer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Answers, Callable[[int], Fleet]]]:
    """A server with prescribed answers, and its devices with a limit."""
    answers: Answers = {}
    read: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers, content = answers[self.path.rpartition("/")[2]](body)
            self.send_response(int(headers.pop("status", "200")))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                self.wfile.write(content)
                read.append(len(content))
            except OSError:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None: ...

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None: ...

    root = make_root("test", 5)
    own: Credentials = issue(root, "server", "server", ["127.0.0.1"], 5)
    (tmp_path / "server.pem").write_bytes(own.certificate + own.private_key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    made = Server(("127.0.0.1", 0), Handler)
    made.socket = context.wrap_socket(made.socket, server_side=True)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    fleets: list[Fleet] = []

    def device(most: int) -> Fleet:
        key, address = ec.generate_private_key(ec.SECP384R1()), f"127.0.0.1:{made.server_port}"
        stop = threading.Event()
        fleets.append(Fleet(address, root.certificate, key, most, stop, lambda _: None))
        return fleets[-1]

    yield answers, device
    for fleet in fleets:
        fleet.close()
    made.shutdown()
    made.server_close()


def serve(answers: Answers, objects: Objects) -> list[str]:
    """Answer with these objects; returns what is fetched, as it comes."""
    fetched: list[str] = []

    def pulled(body: bytes) -> tuple[dict[str, str], bytes]:
        fetched.append(flower.PullObjectRequest.FromString(body).object_id)
        return objects.pulled(body)

    answers |= {
        "pull-messages": objects.listed,
        "pull-object": pulled,
        "confirm-message-received": lambda body: ({"content-length": "0"}, b""),
    }
    return fetched


def test_message_within_the_limit_is_read_and_one_byte_less_is_too_little(
    server: tuple[Answers, Callable[[int], Fleet]],
) -> None:
    answers, device = server
    objects = Objects(np.arange(1000, dtype=np.float32))
    serve(answers, objects)
    size = sum(len(content) for content in objects.contents.values())
    message = device(size).receive()
    assert message is not None
    array = message.content.array_records["arrays"]["w"].numpy()
    assert np.array_equal(array, np.arange(1000, dtype=np.float32))
    with pytest.raises(MessageLost, match=f"larger than the {size - 1} bytes"):
        device(size - 1).receive()


def test_array_of_one_part_many_times_is_not_put_together(
    server: tuple[Answers, Callable[[int], Fleet]],
) -> None:
    """40 kB on the wire that would be 40 MB in memory."""
    answers, device = server
    objects = Objects(np.ones(10_000, np.float32))
    name, content = next((k, c) for k, c in objects.contents.items() if b"arraychunk_ids" in c)
    head, body = content.split(b"\0", 1)
    fields = json.loads(body)
    fields["arraychunk_ids"] *= 1000
    swollen = json.dumps(fields).encode()
    kind, children, _ = head.split(b" ")
    objects.contents[name] = b" ".join([kind, children, b"%d" % len(swollen)]) + b"\0" + swollen
    serve(answers, objects)
    with pytest.raises(MessageLost, match="larger than the 1000000 bytes"):
        device(10**6).receive()


def test_list_of_more_objects_than_fit_is_not_fetched_at_all(
    server: tuple[Answers, Callable[[int], Fleet]],
) -> None:
    answers, device = server
    objects = Objects(np.ones(10, np.float32))
    objects.tree.children.extend([objects.tree.children[0]] * 2_001)
    fetched = serve(answers, objects)
    with pytest.raises(MessageLost, match="more objects than"):
        device(10**5).receive()
    assert not fetched


@pytest.mark.parametrize(
    "headers",
    [
        {"content-length": str(OBJECT_BYTES + 1025)},
        {"transfer-encoding": "chunked"},
        {"content-length": "100", "content-encoding": "gzip"},
        {"content-length": "0", "status": "307", "location": "https://127.0.0.1:1/"},
    ],
    ids=["too long", "of no known length", "compressed", "sent elsewhere"],
)
def test_answer_is_refused_by_its_head(
    server: tuple[Answers, Callable[[int], Fleet]], headers: dict[str, str]
) -> None:
    answers, device = server
    objects = Objects(np.ones(10, np.float32))
    serve(answers, objects)
    answers["pull-object"] = lambda body: (dict(headers), b"")
    with pytest.raises(MessageLost):
        device(10**9).receive()
    answers["pull-messages"] = lambda body: (
        {"content-length": str(most_bytes("/v1/fleet/pull-messages") + 1)},
        b"",
    )
    with pytest.raises(MessageLost, match="are allowed"):  # and the device continues
        device(10**9).receive()


def test_lists_of_parts_are_bounded_too() -> None:
    array = Array(np.ones(10, np.float32))
    content = array.deflate()
    head, body = content.split(b"\0", 1)
    fields = json.loads(body)
    fields["arraychunk_ids"] = [0] * (10**6 + 1)
    swollen = json.dumps(fields).encode()
    kind, children, _ = head.split(b" ")
    guard = guard_of(10**9)
    with pytest.raises(ProtocolError, match="larger than"):
        guard.take("x", b" ".join([kind, children, b"%d" % len(swollen)]) + b"\0" + swollen)


@pytest.mark.parametrize(
    "record", [MetricRecord({"a": [1] * 60_000}), ConfigRecord({"a": [""] * 60_000})]
)
def test_single_values_are_counted_because_they_grow_in_memory(
    record: MetricRecord | ConfigRecord,
) -> None:
    """15 MB of short values are 60 to 210 MB when they have been read."""
    guard, content = guard_of(10**9), record.deflate()
    guard.take("x", content)
    with pytest.raises(ProtocolError, match="too many pieces"):
        guard.take("y", content)
    with pytest.raises(ValueError, match="no record"):
        guard.take("z", content[:-3])


def test_one_long_value_is_no_matter() -> None:
    """A sealed update."""
    guard_of(10**8).take("x", ConfigRecord({"a": bytes(16_000_000)}).deflate())
