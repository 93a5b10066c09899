"""Which servers a device refuses to talk to, over real TLS, and what it says then."""

from __future__ import annotations

import datetime
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from bench.deployment_harness import free_port
from calyx.client.deployment.fleet import Fleet
from calyx.shared.errors import EnrolmentError
from calyx.shared.host import certificates
from calyx.shared.host.certificates import Credentials, issue, make_root
from calyx.shared.protocol.flower.http_retry import Stopped

Serve = Callable[[Credentials], str]


@pytest.fixture(scope="module")
def root() -> Credentials:
    return make_root("test root", 10)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """An HTTPS server with given credentials; it answers every call with 412, as Flower does."""
    servers: list[http.server.HTTPServer] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(412)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    def start(credentials: Credentials) -> str:
        pem = tmp_path / "server.pem"
        pem.write_bytes(credentials.certificate + credentials.private_key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None: ...

        server = Server(("127.0.0.1", 0), Answer)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def connect(address: str, root: Credentials, stop: threading.Event | None = None) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    troubles: list[str] = []
    ending = stop or threading.Event()
    fleet = Fleet(address, root.certificate, key, 10**6, ending, troubles.append)
    try:
        fleet.connect(None)
    finally:
        fleet.close()


def test_server_of_another_ca_is_refused(serve: Serve, root: Credentials) -> None:
    foreign = issue(make_root("rogue", 10), "server", "server", ["127.0.0.1"], 5)
    with pytest.raises(EnrolmentError, match="not signed by the CA that was pinned"):
        connect(serve(foreign), root)


def test_server_under_another_name_is_refused(serve: Serve, root: Credentials) -> None:
    elsewhere = issue(root, "server", "server", ["example.org"], 5)
    with pytest.raises(EnrolmentError, match="for another host name"):
        connect(serve(elsewhere), root)


def test_expired_certificate_is_refused_with_what_to_do(
    serve: Serve, root: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Past(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Past:
            return cls(2020, 1, 1, tzinfo=tz)

    monkeypatch.setattr(certificates, "datetime", Past)
    old = issue(root, "server", "server", ["127.0.0.1"], 5)
    with pytest.raises(EnrolmentError, match="has expired\nhint: .* calyx server renew"):
        connect(serve(old), root)


def test_unknown_device_is_told_to_be_approved(serve: Serve, root: Credentials) -> None:
    good = issue(root, "server", "server", ["127.0.0.1"], 5)
    with pytest.raises(EnrolmentError, match="was not approved yet or was revoked"):
        connect(serve(good), root)


def test_device_waits_for_a_server_that_is_not_there_until_it_is_stopped(
    root: Credentials,
) -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(Stopped):
        connect(f"127.0.0.1:{free_port()}", root, stop)
