"""Types of the generated gRPC code, which has none. Keep in step with authority.proto."""

from collections.abc import Callable, Iterator

import grpc

from calyx.shared.protocol.authority import authority_pb2 as pb

class _UnaryStream:
    def __call__(
        self, request: pb.RunTerms, *, timeout: float, wait_for_ready: bool
    ) -> Iterator[pb.RunPart]: ...

class _StreamStream:
    def __call__(
        self, request_iterator: Iterator[pb.ReleasePart], *, timeout: float, wait_for_ready: bool
    ) -> Iterator[pb.ReleasedPart]: ...

class _UnaryUnary:
    def __call__(
        self, request: pb.RunName, *, timeout: float, wait_for_ready: bool
    ) -> pb.Closed: ...

class KeyAuthorityStub:
    OpenRun: _UnaryStream
    Release: _StreamStream
    CloseRun: _UnaryUnary
    def __init__(self, channel: grpc.Channel) -> None: ...

class KeyAuthorityServicer:
    def OpenRun(
        self, request: pb.RunTerms, context: grpc.ServicerContext
    ) -> Iterator[pb.RunPart]: ...
    def Release(
        self, request_iterator: Iterator[pb.ReleasePart], context: grpc.ServicerContext
    ) -> Iterator[pb.ReleasedPart]: ...
    def CloseRun(self, request: pb.RunName, context: grpc.ServicerContext) -> pb.Closed: ...

add_KeyAuthorityServicer_to_server: Callable[[KeyAuthorityServicer, grpc.Server], None]
