"""The key authority behind gRPC: `authority.local` for one aggregation server elsewhere.

Both ends present certificates of one root made for this line (`authority.certificates`), so only
the server gets as far as a request. Nothing read from it is kept before it is within bounds:
messages, number of receipts, number and size of ciphertexts, and the time all of it may take.
A refusal is answered with its reason; an unexpected fault is logged here and answered with the
word "internal" only, because its text might quote what the other side must not see.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from authority.local import LocalAuthority
from shared.certificates import Credentials
from shared.encryption import SealingParameters
from shared.errors import CalyxError, EncryptionError, ProtocolError, ReleaseRefused
from shared.protocol import authority_pb2 as pb
from shared.protocol import authority_pb2_grpc
from shared.protocol.authority_client import (
    CULPRITS_KEY,
    MAX_MESSAGE_BYTES,
    REFUSAL_KEY,
    Refusal,
    ReleaseRequest,
    culprits_to_bytes,
)
from shared.protocol.receipts import Receipt
from shared.protocol.signed import check_name, is_hex

MAX_RECEIPTS = 100_000
MAX_CALL_S = 600.0
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


class KeyAuthorityServicer(authority_pb2_grpc.KeyAuthorityServicer):
    """The calls of ``authority.proto``.

    Args:
        authority: does the work; its owner closes it.
    """

    def __init__(self, authority: LocalAuthority) -> None:
        self._authority = authority

    def OpenRun(  # noqa: N802  the name in the proto file
        self, request: pb.RunTerms, context: grpc.ServicerContext
    ) -> Iterator[pb.RunPart]:
        """See ``authority.proto``."""
        _check_deadline(context)
        try:
            opening = self._authority.open_run(
                request.run,
                _read_parameters(request.parameters),
                request.min_contributors,
                list(request.contributors),
            )
        except Exception as error:
            _answer(error, context)
        for piece in _pieces(opening.public_context):
            yield pb.RunPart(public_context=piece)
        for admission in opening.admissions.values():
            yield pb.RunPart(admission=admission.to_json())

    def Release(  # noqa: N802
        self, request_iterator: Iterator[pb.ReleasePart], context: grpc.ServicerContext
    ) -> Iterator[pb.ReleasedPart]:
        """See ``authority.proto``."""
        _check_deadline(context)
        try:
            request, chunks = self._read(request_iterator)
            released = self._authority.release(request, chunks)
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

    def CloseRun(  # noqa: N802
        self, request: pb.RunName, context: grpc.ServicerContext
    ) -> pb.Closed:
        """See ``authority.proto``."""
        _check_deadline(context)
        try:
            self._authority.close_run(request.run)
        except Exception as error:
            _answer(error, context)
        return pb.Closed()

    def _read(self, parts: Iterator[pb.ReleasePart]) -> tuple[ReleaseRequest, list[bytes]]:
        """The whole request; the rules are checked before its ciphertexts are taken in."""
        run, round = "?", 0
        try:
            header = _read_header(parts)
            run, round = header.run, header.round
            request = _read_request(header, parts)
            self._authority.check(request)
            count, size = self._authority.chunk_limits(run)
            return request, _read_chunks(header, parts, count, size)
        except ProtocolError as error:
            self._authority.refuse_malformed(run, round, str(error))


class AuthorityServer:
    """A listening authority.

    Args:
        authority: does the work; closed by its owner after `stop`.
        host, port: where to listen; port 0 takes a free one.
        root_certificate: PEM; whoever calls must have a certificate of this root.
        credentials: the authority's own.

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
    ) -> None:
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="calyx-authority")
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
            ("grpc.keepalive_time_ms", 30_000),
        ]
        self._server = grpc.server(self._pool, options=options, maximum_concurrent_rpcs=16)
        authority_pb2_grpc.add_KeyAuthorityServicer_to_server(
            KeyAuthorityServicer(authority), self._server
        )
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        tls = grpc.ssl_server_credentials(
            [(credentials.private_key, credentials.certificate)],
            root_certificates=root_certificate,
            require_client_auth=True,
        )
        try:
            self.port = self._server.add_secure_port(f"{host}:{port}", tls)
        except RuntimeError as error:
            raise CalyxError(
                f"the key authority cannot listen on {host}:{port}; see what else does, or set "
                "another port in authority.toml"
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


def _read_header(parts: Iterator[pb.ReleasePart]) -> pb.ReleaseHeader:
    first = next(parts, None)
    if first is None or first.WhichOneof("part") != "header":
        raise ProtocolError("a release starts with its header")
    check_name("run", first.header.run)
    return first.header


def _read_request(header: pb.ReleaseHeader, parts: Iterator[pb.ReleasePart]) -> ReleaseRequest:
    if not is_hex(header.sum_hash, 64):
        raise ProtocolError("the hash of the sum is not one")
    if header.receipts > MAX_RECEIPTS:
        raise ProtocolError(f"{header.receipts} receipts; {MAX_RECEIPTS} are the most")
    receipts: list[Receipt] = []
    while len(receipts) < header.receipts:
        part = next(parts, None)
        if part is None or part.WhichOneof("part") != "receipt":
            raise ProtocolError(f"{len(receipts)} receipts came of {header.receipts}")
        receipts.append(Receipt.from_json(part.receipt))
    return ReleaseRequest(
        header.run, header.round, header.contributors, tuple(receipts), header.sum_hash
    )


def _read_chunks(
    header: pb.ReleaseHeader, parts: Iterator[pb.ReleasePart], count: int, size: int
) -> list[bytes]:
    if header.chunks != count:
        raise ProtocolError(f"a sum of run {header.run!r} has {count} ciphertexts")
    chunks: list[bytes] = []
    for part in parts:
        if part.WhichOneof("part") != "chunk" or len(chunks) == count:
            raise ProtocolError("something follows that was not announced")
        if len(part.chunk) > size:
            raise ProtocolError(f"a ciphertext of run {header.run!r} has {size} bytes at most")
        chunks.append(part.chunk)
    if len(chunks) < count:
        raise ProtocolError(f"{len(chunks)} ciphertexts came of {count}")
    return chunks


def _pieces(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), PIECE_BYTES):
        yield content[start : start + PIECE_BYTES]


def _check_deadline(context: grpc.ServicerContext) -> None:
    remaining = context.time_remaining()
    if remaining is None or remaining > MAX_CALL_S:
        context.abort(
            grpc.StatusCode.INVALID_ARGUMENT, f"set a deadline of {MAX_CALL_S:g} s at most"
        )


def _read_parameters(text: str) -> SealingParameters:
    try:
        return SealingParameters.from_json(text)
    except EncryptionError as error:
        raise ProtocolError(str(error)) from error


def _answer(error: Exception, context: grpc.ServicerContext) -> NoReturn:
    """End the call with what the other side may know about `error`."""
    if not isinstance(error, ReleaseRefused | ProtocolError):
        _log.error("a call failed", exc_info=error)
        context.abort(grpc.StatusCode.INTERNAL, "internal fault of the key authority, see its log")
    if isinstance(error, ReleaseRefused):
        reason, detail = Refusal.of(error), str(error).partition(": ")[2]
    else:
        reason, detail = Refusal.MALFORMED, str(error)
    named = culprits_to_bytes(error.culprits if isinstance(error, ReleaseRefused) else ())
    context.set_trailing_metadata(((REFUSAL_KEY, reason.value), (CULPRITS_KEY, named)))
    context.abort(_STATUS.get(reason, grpc.StatusCode.FAILED_PRECONDITION), detail)
