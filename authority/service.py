"""The key authority behind gRPC: `calyx.authority.local` for one aggregation server elsewhere.

Both ends present certificates of one root made for this link (`calyx.authority.certificates`), so
only the server gets as far as a request. A caller without a certificate holds a connection for the
time of a handshake (`Limits`). Nothing read from the server is kept before it is within bounds:
messages, number of receipts, number and size of ciphertexts (`calyx.authority.upload`), the time
between two parts and the time that all of it may take. A refusal is answered with its reason; an
unexpected fault is logged here and answered only with the word "internal", because its text might
quote what the other side must not see.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from calyx.authority.local import LocalAuthority
from calyx.authority.upload import NothingCame, Parts, read_upload
from calyx.shared.encryption import SealingParameters
from calyx.shared.errors import CalyxError, EncryptionError, ProtocolError, ReleaseRefused
from calyx.shared.host.address import bracketed
from calyx.shared.host.certificates import Credentials
from calyx.shared.protocol.authority import authority_pb2 as pb
from calyx.shared.protocol.authority import authority_pb2_grpc
from calyx.shared.protocol.authority.client import (
    CULPRITS_KEY,
    MAX_MESSAGE_BYTES,
    REFUSAL_KEY,
    culprits_to_bytes,
)
from calyx.shared.protocol.authority.interface import Refusal, Released

PIECE_BYTES = 2**20
SERVICE_NAME = "calyx.authority.v1.KeyAuthority"

_log = logging.getLogger(__name__)

_STATUS = {
    Refusal.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Refusal.UNKNOWN_RUN: grpc.StatusCode.NOT_FOUND,
    Refusal.ALREADY_RELEASED: grpc.StatusCode.ALREADY_EXISTS,
    Refusal.NOT_ENROLLED: grpc.StatusCode.PERMISSION_DENIED,
    Refusal.REVOKED: grpc.StatusCode.PERMISSION_DENIED,
    Refusal.NOT_IN_RUN: grpc.StatusCode.PERMISSION_DENIED,
    Refusal.SIGNATURE: grpc.StatusCode.PERMISSION_DENIED,
}


@dataclass(frozen=True)
class Limits:
    """What one caller can hold of this process, and for how long.

    Attributes:
        handshake_s: until a connection has shown its certificate.
        connections: at once, with and without a certificate; fewer than a process may have files
            open (1024, as a rule), because the log and the keys need some.
        idle_s: until a connection without calls is closed; the server's opens again by itself.
        calls: at once.
        call_s: the longest deadline of a call.
        uploads: of sums at once: each holds a thread and as many ciphertexts as a sum has.
        stall_s: until the next part of an upload must have come.
    """

    handshake_s: float = 10.0
    connections: int = 512
    idle_s: float = 300.0
    calls: int = 16
    call_s: float = 600.0
    uploads: int = 4
    stall_s: float = 20.0


class KeyAuthorityServicer(authority_pb2_grpc.KeyAuthorityServicer):
    """The calls of ``authority.proto``.

    Args:
        authority: does the work; its owner closes it.
        limits: on calls.
    """

    def __init__(self, authority: LocalAuthority, limits: Limits) -> None:
        self._authority, self._limits = authority, limits
        self._uploads = threading.BoundedSemaphore(limits.uploads)
        # Twice as many: a waiting thread becomes free a moment after its call has ended.
        self._readers = ThreadPoolExecutor(2 * limits.uploads, "calyx-authority-reader")

    def close(self) -> None:
        """Wait for the threads once no call is left."""
        self._readers.shutdown()

    def OpenRun(  # noqa: N802  the name in the proto file
        self, request: pb.RunTerms, context: grpc.ServicerContext
    ) -> Iterator[pb.RunPart]:
        """See ``authority.proto``."""
        _check_deadline(context, self._limits.call_s)
        try:
            opening = self._authority.open_run(
                request.run,
                _read_parameters(request.parameters),
                request.min_contributors,
                list(request.contributors),
                request.plan_digest,
                request.config_digest,
                _read_head(request),
            )
        except Exception as error:
            _answer(error, context)
        for piece in _pieces(opening.public_context):
            yield pb.RunPart(public_context=piece)
        for admission in opening.admissions.values():
            yield pb.RunPart(admission=admission.to_json())
        for name, verify_key in opening.contributor_keys.items():
            yield pb.RunPart(contributor_key=pb.ContributorKey(name=name, verify_key=verify_key))

    def Release(  # noqa: N802
        self, request_iterator: Iterator[pb.ReleasePart], context: grpc.ServicerContext
    ) -> Iterator[pb.ReleasedPart]:
        """See ``authority.proto``."""
        _check_deadline(context, self._limits.call_s)
        try:
            released = self._upload(request_iterator)
        except NothingCame:
            seconds = f"{self._limits.stall_s:g} s"
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"nothing came for {seconds}")
        except TooManyUploads as error:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except Exception as error:
            _answer(error, context)
        values = released.values
        header = pb.ReleasedHeader(
            count=len(values),
            log_index=released.log_index,
            log_hash=released.log_hash,
        )
        yield pb.ReleasedPart(header=header)
        for piece in _pieces(values.astype("<i8").tobytes()):
            yield pb.ReleasedPart(values=piece)

    def _upload(self, parts: Iterator[pb.ReleasePart]) -> Released:
        if not self._uploads.acquire(blocking=False):
            raise TooManyUploads(f"{self._limits.uploads} sums are on their way already")
        try:
            waiting = Parts(parts, self._readers, self._limits.stall_s)
            return self._authority.release(*read_upload(self._authority, waiting))
        finally:
            self._uploads.release()

    def CloseRun(  # noqa: N802
        self, request: pb.RunName, context: grpc.ServicerContext
    ) -> pb.Closed:
        """See ``authority.proto``."""
        _check_deadline(context, self._limits.call_s)
        try:
            self._authority.close_run(request.run)
        except Exception as error:
            _answer(error, context)
        return pb.Closed()


class AuthorityServer:
    """A listening authority.

    Args:
        authority: does the work; closed by its owner after `stop`.
        host, port: where to listen; port 0 takes a free one.
        root_certificate: PEM; callers must have a certificate of this root.
        credentials: the authority's own.
        limits: on connections and calls.

    Raises:
        CalyxError: the port is taken.
    """

    def __init__(
        self,
        authority: LocalAuthority,
        host: str,
        port: int,
        root_certificate: bytes,
        credentials: Credentials,
        limits: Limits = Limits(),
    ) -> None:
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="calyx-authority")
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
            ("grpc.server_handshake_timeout_ms", round(1000 * limits.handshake_s)),
            ("grpc.max_allowed_incoming_connections", limits.connections),
            ("grpc.max_connection_idle_ms", round(1000 * limits.idle_s)),
            ("grpc.max_concurrent_streams", limits.calls),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 20_000),
        ]
        self._server = grpc.server(
            self._pool, options=options, maximum_concurrent_rpcs=limits.calls
        )
        self._servicer = KeyAuthorityServicer(authority, limits)
        authority_pb2_grpc.add_KeyAuthorityServicer_to_server(self._servicer, self._server)
        self._health = _Health()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        tls = grpc.ssl_server_credentials(
            [(credentials.private_key, credentials.certificate)],
            root_certificates=root_certificate,
            require_client_auth=True,
        )
        try:
            self.port = self._server.add_secure_port(f"{bracketed(host)}:{port}", tls)
        except RuntimeError as error:
            raise CalyxError(
                f"the key authority cannot listen on {bracketed(host)}:{port}",
                hint="check which process does, or set another port in authority.toml",
            ) from error

    def start(self) -> None:
        """Accept calls from now on."""
        self._server.start()
        for name in ("", SERVICE_NAME):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace_s: float = 5.0) -> None:
        """Take no new calls, let those under way finish, and return when all is down."""
        self._health.enter_graceful_shutdown()
        done: threading.Event = self._server.stop(grace_s)
        done.wait()
        self._pool.shutdown()
        self._servicer.close()


class TooManyUploads(Exception):
    """No further upload is accepted now."""


def _read_head(terms: pb.RunTerms) -> tuple[int, str] | None:
    if not terms.HasField("known_head"):
        return None
    return terms.known_head.index, terms.known_head.hash


class _Health(health.HealthServicer):  # type: ignore[misc]  # untyped
    """Health without `Watch`, a call that needs no deadline and never ends."""

    def __init__(self) -> None:
        super().__init__(experimental_non_blocking=False)

    def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> Iterator[health_pb2.HealthCheckResponse]:
        """Refused."""
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "ask with Check")


def _pieces(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), PIECE_BYTES):
        yield content[start : start + PIECE_BYTES]


def _check_deadline(context: grpc.ServicerContext, most_s: float) -> None:
    remaining = context.time_remaining()
    if remaining is None or remaining > most_s:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"set a deadline of {most_s:g} s at most")


def _read_parameters(text: str) -> SealingParameters:
    try:
        return SealingParameters.from_json(text)
    except EncryptionError as error:
        raise ProtocolError(str(error), hint=error.hint) from error


def _answer(error: Exception, context: grpc.ServicerContext) -> NoReturn:
    """End the call with what the other side may know about `error`."""
    if not isinstance(error, ReleaseRefused | ProtocolError):
        _log.error("a call failed", exc_info=error)
        context.abort(grpc.StatusCode.INTERNAL, "internal fault of the key authority, see its log")
    if isinstance(error, ReleaseRefused):
        reason, detail = Refusal.of(error), error.full_text.partition(": ")[2]
    else:
        reason, detail = Refusal.MALFORMED, error.full_text
    named = culprits_to_bytes(error.culprits if isinstance(error, ReleaseRefused) else ())
    context.set_trailing_metadata(((REFUSAL_KEY, reason.value), (CULPRITS_KEY, named)))
    context.abort(_STATUS.get(reason, grpc.StatusCode.FAILED_PRECONDITION), detail)
