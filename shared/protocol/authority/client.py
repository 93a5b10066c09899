"""The key authority over gRPC, with certificates on both sides.

A call that lost its connection is repeated; see `calyx.shared.protocol.authority.interface` for why
that is safe.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from calyx.shared.encryption import SealingParameters
from calyx.shared.errors import CalyxError, ProtocolError, RunError
from calyx.shared.host.closable import Closable
from calyx.shared.host.proxies import host_of, is_loopback
from calyx.shared.protocol.authority import authority_pb2 as pb
from calyx.shared.protocol.authority import authority_pb2_grpc
from calyx.shared.protocol.authority.interface import (
    Head,
    Opening,
    Refusal,
    Released,
    ReleaseRequest,
)
from calyx.shared.protocol.sealed.admission import Admission

REFUSAL_KEY, CULPRITS_KEY = "calyx-refusal", "calyx-culprits-bin"
# What gRPC carries beside an error is small; who is not named is named when it is asked again.
_MAX_CULPRITS_BYTES = 4096
MAX_MESSAGE_BYTES = 4 * 2**20
RECONNECT_MS = 2000

_R = TypeVar("_R")


class RemoteAuthority(Closable):
    """The authority behind gRPC.

    Args:
        target: host:port.
        root_certificate, certificate, private_key: PEM; as made by ``calyx authority init``.
        timeout_s: how long each call may take, waiting for a restarted authority included.
    """

    def __init__(
        self,
        target: str,
        root_certificate: bytes,
        certificate: bytes,
        private_key: bytes,
        timeout_s: float = 60.0,
    ) -> None:
        credentials = grpc.ssl_channel_credentials(root_certificate, private_key, certificate)
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", RECONNECT_MS),
        ]
        if is_loopback(host_of(target)):
            options.append(("grpc.enable_http_proxy", 0))
        self._channel = grpc.secure_channel(target, credentials, options)
        self._stub = authority_pb2_grpc.KeyAuthorityStub(self._channel)
        self._target, self._timeout_s = target, timeout_s

    def open_run(
        self,
        run: str,
        parameters: SealingParameters,
        min_contributors: int,
        contributors: Sequence[str],
        plan_digest: str,
        config_digest: str,
        known_head: Head | None = None,
    ) -> Opening:
        """See `Authority.open_run`."""
        terms = pb.RunTerms(
            run=run,
            parameters=parameters.to_json(),
            min_contributors=min_contributors,
            contributors=contributors,
            plan_digest=plan_digest,
            config_digest=config_digest,
            known_head=pb.LogHead(index=known_head[0], hash=known_head[1]) if known_head else None,
        )

        def call(timeout_s: float) -> Opening:
            context, admissions, keys = bytearray(), {}, {}
            for part in self._stub.OpenRun(terms, timeout=timeout_s, wait_for_ready=True):
                kind = part.WhichOneof("part")
                if kind == "admission":
                    admission = Admission.from_json(part.admission)
                    admissions[admission.contributor] = admission
                elif kind == "contributor_key":
                    keys[part.contributor_key.name] = part.contributor_key.verify_key
                else:
                    context += part.public_context
            if not set(admissions) == set(keys) == set(contributors):
                raise ProtocolError(f"the key authority at {self._target} admits other clients")
            return Opening(bytes(context), admissions, keys)

        return self._until_answered(call)

    def release(self, request: ReleaseRequest, chunks: Sequence[bytes]) -> Released:
        """See `Authority.release`."""

        def call(timeout_s: float) -> Released:
            parts = self._stub.Release(
                release_parts(request, chunks), timeout=timeout_s, wait_for_ready=True
            )
            header, pieces = None, bytearray()
            for part in parts:
                if part.WhichOneof("part") == "header":
                    header = part.header
                else:
                    pieces += part.values
            if header is None or len(pieces) != 8 * header.count:
                raise ProtocolError(f"the key authority at {self._target} answered only in part")
            values = np.frombuffer(bytes(pieces), dtype="<i8").astype(np.int64)
            return Released(values, header.log_index, header.log_hash)

        return self._until_answered(call)

    def close_run(self, run: str) -> None:
        """See `Authority.close_run`."""
        self._until_answered(
            lambda t: self._stub.CloseRun(pb.RunName(run=run), timeout=t, wait_for_ready=True)
        )

    def health(self) -> bool:
        """See `Authority.health`; false when it cannot be reached within five seconds."""
        stub = health_pb2_grpc.HealthStub(self._channel)
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=min(5.0, self._timeout_s))
        except grpc.RpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _until_answered(self, call: Callable[[float], _R]) -> _R:
        """Repeat a call that lost its connection until the deadline; see the module's text."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                return call(max(0.01, deadline - time.monotonic()))
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                    raise self._translated(error) from error
            time.sleep(0.1)

    def _translated(self, error: grpc.RpcError) -> CalyxError:
        detail = " ".join((error.details() or "").split())[:500]
        beside = {item.key: item.value for item in error.trailing_metadata() or ()}
        if (reason := str(beside.get(REFUSAL_KEY, ""))) in set(Refusal):
            return Refusal(reason).error(detail, _read_culprits(beside.get(CULPRITS_KEY, b"")))
        code = error.code()
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return RunError(
                f"the key authority at {self._target} did not answer within {self._timeout_s:g} s "
                f"({detail})",
                hint="check that it runs and that the certificates are its own",
            )
        return RunError(f"the key authority at {self._target} failed: {code.name}: {detail}")


def culprits_to_bytes(culprits: Sequence[str]) -> bytes:
    """As many of these names as travel beside an error."""
    names = list(culprits)
    while len(text := json.dumps(names).encode()) > _MAX_CULPRITS_BYTES:
        names = names[: len(names) // 2]
    return text


def _read_culprits(text: str | bytes) -> list[str]:
    """Inverse of `culprits_to_bytes`. What is no list of names names no one."""
    try:
        names = json.loads(text or b"[]")
    except ValueError:
        return []
    return [n for n in names if isinstance(n, str)] if isinstance(names, list) else []


def release_parts(request: ReleaseRequest, chunks: Sequence[bytes]) -> Iterator[pb.ReleasePart]:
    """A release request as it travels."""
    header = pb.ReleaseHeader(
        run=request.run,
        round=request.round,
        contributors=request.contributors,
        sum_hash=request.sum_hash,
        receipts=len(request.receipts),
        chunks=len(chunks),
    )
    yield pb.ReleasePart(header=header)
    for receipt in request.receipts:
        yield pb.ReleasePart(receipt=receipt.to_json())
    for chunk in chunks:
        yield pb.ReleasePart(chunk=chunk)
