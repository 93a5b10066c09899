"""Calls to this machine go through no proxy, whatever the environment says; others do."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent import futures

import grpc
import httpx
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from calyx.shared.errors import UsageError
from calyx.shared.host.certificates import issue, make_root
from calyx.shared.host.proxies import host_of, is_loopback, keep_local_calls_direct, proxy_for
from calyx.shared.protocol.authority.client import RemoteAuthority

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "GRPC_PROXY", "NO_GRPC_PROXY")


class Proxy:
    """Counts those who come, and sends them away."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://user:secret@127.0.0.1:{self._socket.getsockname()[1]}"
        self.visits = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                visitor, _ = self._socket.accept()
            except OSError:
                return
            self.visits += 1
            with visitor:
                visitor.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    for name in VARIABLES:
        # Set first, so that what the code under test writes is undone as well.
        for spelt in (name, name.lower()):
            monkeypatch.setenv(spelt, "")
            monkeypatch.delenv(spelt)
    made = Proxy()
    monkeypatch.setenv("HTTPS_PROXY", made.address)
    monkeypatch.setenv("HTTP_PROXY", made.address)
    yield made
    made.close()


@pytest.fixture
def listener() -> Iterator[int]:
    """A port of this machine that answers every request with 204."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    visitor, _ = server.accept()
                except OSError:
                    return
                with visitor:
                    visitor.recv(4096)
                    visitor.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)


def test_a_call_to_this_machine_passes_by_and_one_to_another_does_not(
    proxy: Proxy, listener: int
) -> None:
    url = f"http://127.0.0.1:{listener}/"
    assert httpx.get(url).status_code == 403
    assert proxy.visits == 1
    keep_local_calls_direct("server.here.example")
    assert httpx.get(url).status_code == 204
    assert httpx.get(url.replace("127.0.0.1", "localhost")).status_code == 204
    assert proxy.visits == 1
    assert httpx.get("http://elsewhere.example/").status_code == 403
    assert proxy.visits == 2
    with pytest.raises(httpx.ConnectError):
        httpx.get("http://server.here.example:1/", timeout=5)
    assert proxy.visits == 2


def test_what_the_user_excepted_stays_excepted(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "mine.example, .corp")
    for _ in range(2):
        keep_local_calls_direct()
    assert os.environ["NO_PROXY"] == "mine.example,.corp,localhost,127.0.0.1,::1"
    monkeypatch.setenv("no_proxy", "*")
    keep_local_calls_direct()
    assert os.environ["no_proxy"] == "*" and not proxy_for("elsewhere.example:1")


def test_nothing_is_set_where_there_is_no_proxy(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HTTP_PROXY")
    monkeypatch.delenv("HTTPS_PROXY")
    keep_local_calls_direct()
    assert "NO_PROXY" not in os.environ


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NO_PROXY", "[::1]"),
        ("NO_PROXY", "::1/128"),
        ("NO_PROXY", "http://x:port"),
        ("HTTPS_PROXY", "127.0.0.1:port"),
        ("HTTPS_PROXY", "gopher://user:secret@127.0.0.1:70"),
    ],
)
def test_settings_that_no_client_can_read_are_one_line(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="proxy settings of the environment") as caught:
        keep_local_calls_direct()
    text = caught.value.full_text
    assert "\n" not in text and "secret" not in text
    assert name != "NO_PROXY" or value in text


def test_which_proxy_a_device_uses_is_told_without_its_password(proxy: Proxy) -> None:
    keep_local_calls_direct()
    assert proxy_for("fl.example.org:9441") == proxy.address.rpartition("@")[2]
    for address in ("127.0.0.1:1", "localhost:1", "[::1]:1", "127.9.9.9:1"):
        assert proxy_for(address) == "" and is_loopback(host_of(address))


def test_the_key_authority_on_this_machine_is_reached_directly(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", proxy.address)  # gRPC reads no other spelling
    root = make_root("test root", 5)
    server_side = issue(root, "authority", "server", ["127.0.0.1"], 5)
    client_side = issue(root, "server", "client", [], 5)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    credentials = grpc.ssl_server_credentials(
        [(server_side.private_key, server_side.certificate)], root.certificate, True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        with RemoteAuthority(
            f"127.0.0.1:{port}", root.certificate, client_side.certificate, client_side.private_key
        ) as authority:
            assert authority.health()
        assert proxy.visits == 0
    finally:
        server.stop(None).wait()
