"""What one caller can hold of the authority: real sockets that stay silent, uploads that stop."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from calyx.authority.certificates import CertificateSet
from calyx.authority.local import LocalAuthority
from calyx.authority.service import AuthorityServer, Limits
from calyx.shared.errors import ReleaseRefused
from calyx.shared.protocol.authority import authority_pb2 as pb
from calyx.shared.protocol.authority import authority_pb2_grpc
from calyx.shared.protocol.authority.client import release_parts
from tests.authority.served_authority import HOST, ServedAuthority

# Far below what is used, so that the tests need not wait; a socket waits for long before it fails.
LIMITS = Limits(handshake_s=1.0, connections=40, stall_s=0.5, uploads=1)
PATIENCE_S = 30.0


@pytest.fixture
def strict(authority: LocalAuthority, tls: CertificateSet) -> Iterator[ServedAuthority]:
    server = AuthorityServer(authority, HOST, 0, tls.root, tls.authority, LIMITS)
    server.start()
    yield ServedAuthority(authority, server, tls)
    server.stop()


def connected(served: ServedAuthority, stack: ExitStack) -> socket.socket:
    made = socket.create_connection((HOST, served.server.port), timeout=PATIENCE_S)
    return stack.enter_context(made)


def is_closed(connection: socket.socket) -> bool:
    """Wait for the other end to close it."""
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def works(served: ServedAuthority) -> bool:
    with (
        served.connect(timeout_s=PATIENCE_S) as client,
        pytest.raises(ReleaseRefused, match="^unknown-run"),
    ):
        client.close_run("another")
    return True


def test_silent_connections_are_closed_and_keep_nobody_out(
    strict: ServedAuthority, tls: CertificateSet
) -> None:
    """Those that say nothing, stop in the handshake, or have no certificate to show."""
    with ExitStack() as stack:
        silent = [connected(strict, stack) for _ in range(10)]
        halfway = [connected(strict, stack) for _ in range(10)]
        for connection in halfway:
            connection.sendall(bytes.fromhex("160301020001"))  # a ClientHello, begun
        anonymous = ssl.create_default_context(cadata=tls.root.decode())
        nameless = []
        for _ in range(10):
            # With TLS 1.3 the handshake is over for a client before its certificate is looked for.
            wrapped = anonymous.wrap_socket(connected(strict, stack), server_hostname=HOST)
            nameless.append(stack.enter_context(wrapped))
        assert works(strict)
        assert all(is_closed(connection) for connection in (*silent, *halfway, *nameless))


def test_an_honest_server_gets_in_when_silent_connections_have_had_their_time(
    strict: ServedAuthority,
) -> None:
    with ExitStack() as stack:
        silent = [connected(strict, stack) for _ in range(3 * LIMITS.connections)]
        assert works(strict)
        assert all(is_closed(connection) for connection in silent)


def test_more_connections_than_allowed_are_turned_away(
    authority: LocalAuthority, tls: CertificateSet
) -> None:
    """Before they cost a file too many: without files nothing can be logged, nor released."""
    limits = Limits(handshake_s=600.0, connections=5)
    server = AuthorityServer(authority, HOST, 0, tls.root, tls.authority, limits)
    server.start()
    with ExitStack() as stack:
        served = ServedAuthority(authority, server, tls)
        assert is_closed([connected(served, stack) for _ in range(20)][-1])
    server.stop()


class Stopping:
    """An upload that stops after some parts, until it is let go."""

    def __init__(self, parts: Sequence[pb.ReleasePart]) -> None:
        self.parts, self.sent, self.let_go = parts, threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[pb.ReleasePart]:
        yield from self.parts
        self.sent.set()
        self.let_go.wait(PATIENCE_S)


@pytest.mark.parametrize("parts_sent", [0, 1, 2, 5])
def test_an_upload_that_stops_is_ended_and_its_place_is_free_again(
    parts_sent: int,
    strict: ServedAuthority,
    open_run: Callable[..., Any],
    total_of: Callable[..., np.ndarray[Any, Any]],
) -> None:
    with strict.connect(timeout_s=PATIENCE_S) as client:
        run = open_run(client, strict.authority.verify_key)
        uploads = run.uploads(1)
        request, chunks = run.request(1, uploads)
        stopping = Stopping(list(release_parts(request, chunks))[:parts_sent])
        with strict.channel() as channel:
            stub = authority_pb2_grpc.KeyAuthorityStub(channel)
            with pytest.raises(grpc.RpcError) as caught:
                list(stub.Release(iter(stopping), timeout=PATIENCE_S, wait_for_ready=True))
            stopping.let_go.set()
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert "nothing came for 0.5 s" in caught.value.details()
        for round in (1, 2, 3):  # more often than there are readers
            uploads = run.uploads(round)
            released = client.release(*run.request(round, uploads))
            assert (released.values == total_of(uploads)).all()


def test_no_more_uploads_are_taken_in_than_allowed(
    authority: LocalAuthority, tls: CertificateSet, open_run: Callable[..., Any]
) -> None:
    limits = Limits(uploads=2, stall_s=PATIENCE_S)
    server = AuthorityServer(authority, HOST, 0, tls.root, tls.authority, limits)
    server.start()
    served = ServedAuthority(authority, server, tls)
    run = open_run(authority, authority.verify_key)
    request, chunks = run.request(1, run.uploads(1))
    with served.channel() as channel:
        stub = authority_pb2_grpc.KeyAuthorityStub(channel)
        stopping = [Stopping(list(release_parts(request, chunks))[:2]) for _ in range(3)]
        calls = [
            stub.Release(iter(upload), timeout=PATIENCE_S, wait_for_ready=True)
            for upload in stopping
        ]
        codes: list[grpc.StatusCode] = []
        refused = threading.Event()

        def done(call: Any) -> None:
            codes.append(call.code())
            refused.set()

        for call in calls:
            call.add_done_callback(lambda call=call: done(call))
        assert refused.wait(PATIENCE_S)
        assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED]
        for upload in stopping:
            upload.let_go.set()
    server.stop()


def test_health_cannot_be_watched_without_end(strict: ServedAuthority) -> None:
    with strict.channel() as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=PATIENCE_S, wait_for_ready=True
        )
        with pytest.raises(grpc.RpcError) as caught:
            next(watching)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
