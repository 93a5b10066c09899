"""What the service reads: malformed, oversized and endless calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from calyx.authority.log.events import Refused
from calyx.authority.log.log import verify
from calyx.shared.protocol.authority import authority_pb2 as pb
from calyx.shared.protocol.authority import authority_pb2_grpc
from calyx.shared.protocol.authority.client import (
    MAX_MESSAGE_BYTES,
    REFUSAL_KEY,
    RemoteAuthority,
)
from tests.authority.served_authority import ServedAuthority


def header(**changes: Any) -> pb.ReleasePart:
    plain = {"run": "run-1", "round": 1, "contributors": 3, "sum_hash": "5" * 64}
    return pb.ReleasePart(
        header=pb.ReleaseHeader(**{**plain, "receipts": 3, "chunks": 3, **changes})
    )


def streams(run: Any) -> dict[str, list[pb.ReleasePart]]:
    uploads = run.uploads(1)
    request, chunks = run.request(1, uploads)
    first = header(sum_hash=request.sum_hash)
    receipts = [pb.ReleasePart(receipt=r.to_json()) for r in request.receipts]
    rest = [pb.ReleasePart(chunk=c) for c in chunks]
    large = pb.ReleasePart(chunk=bytes(run.parameters.max_chunk_bytes + 1))
    return {
        "nothing": [],
        "no header": [*receipts, *rest],
        "empty part": [pb.ReleasePart(), *receipts, *rest],
        "run without a name": [header(run=""), *receipts, *rest],
        "run with a line break": [header(run="a\nb"), *receipts, *rest],
        "invalid hash": [header(sum_hash="x"), *receipts, *rest],
        "too many receipts announced": [header(receipts=2**31), *receipts, *rest],
        "more receipts than the run has": [header(receipts=33), *receipts, *rest],
        "an endless receipt": [first, pb.ReleasePart(receipt="x" * 5000), *receipts[1:], *rest],
        "a receipt missing": [first, *receipts[:2], *rest],
        "an invalid receipt": [first, pb.ReleasePart(receipt="{}"), *receipts[1:], *rest],
        "a receipt too many": [first, *receipts, receipts[0], *rest],
        "wrong number of chunks announced": [header(chunks=4), *receipts, *rest],
        "a chunk missing": [first, *receipts, *rest[:2]],
        "a chunk too many": [first, *receipts, *rest, rest[0]],
        "a chunk too large": [first, *receipts, large, *rest[1:]],
        "a second header": [first, *receipts, first, *rest],
    }


def test_malformed_streams_are_refused_logged_and_spend_nothing(
    served: ServedAuthority,
    far_run: Any,
    remote: RemoteAuthority,
    folder: Path,
    total_of: Callable[..., Any],
) -> None:
    with served.channel() as channel:
        stub = authority_pb2_grpc.KeyAuthorityStub(channel)
        for name, parts in streams(far_run).items():
            with pytest.raises(grpc.RpcError) as caught:
                list(stub.Release(iter(parts), timeout=20.0, wait_for_ready=True))
            metadata = {item.key: item.value for item in caught.value.trailing_metadata()}
            assert metadata[REFUSAL_KEY] == "malformed", name
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            told = [entry.event for entry in verify(folder / "releases.jsonl").entries]
            assert caught.value.details() in [e.detail for e in told if isinstance(e, Refused)]
    uploads = far_run.uploads(1)
    released = remote.release(*far_run.request(1, uploads))
    assert (released.values == total_of(uploads)).all()


def test_a_message_over_the_limit_is_not_read(served: ServedAuthority, far_run: Any) -> None:
    large = pb.ReleasePart(chunk=bytes(MAX_MESSAGE_BYTES + 1))
    with served.channel() as channel:
        stub = authority_pb2_grpc.KeyAuthorityStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.Release(iter([large]), timeout=20.0, wait_for_ready=True))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("timeout", [None, 10_000.0])
def test_a_call_without_a_reasonable_deadline_is_refused(
    served: ServedAuthority, timeout: float | None
) -> None:
    with served.channel() as channel:
        stub = authority_pb2_grpc.KeyAuthorityStub(channel)
        with pytest.raises(grpc.RpcError, match="set a deadline"):
            stub.CloseRun(pb.RunName(run="x"), timeout=timeout, wait_for_ready=True)


@pytest.mark.parametrize("what", ["{}", "not json", "x" * 100_000])
def test_parameters_that_cannot_be_read_are_refused(served: ServedAuthority, what: str) -> None:
    terms = pb.RunTerms(run="r", parameters=what, min_contributors=3, contributors=["a"])
    with served.channel() as channel:
        stub = authority_pb2_grpc.KeyAuthorityStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.OpenRun(terms, timeout=20.0, wait_for_ready=True))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
