"""Reading what the server sends for a release: no more than the run allows, and while it comes.

Nothing is kept before it is within bounds: the run's terms bound the number of receipts, its
parameters the number and size of ciphertexts, and these are read only after the rules were checked
(`calyx.authority.local.LocalAuthority.check`).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, wait

from calyx.authority.local import LocalAuthority
from calyx.shared.errors import ProtocolError
from calyx.shared.protocol.authority import authority_pb2 as pb
from calyx.shared.protocol.authority.interface import ReleaseRequest
from calyx.shared.protocol.sealed.receipts import Receipt
from calyx.shared.protocol.signatures.signed import check_name, is_hex

# Two names of 100 characters, escaped in JSON, and hexadecimal digits.
MAX_RECEIPT_BYTES = 4096


class NothingCame(Exception):
    """An upload has stopped in the middle."""


class Parts:
    """The parts of an upload, each waited for a limited time.

    gRPC's own iterator waits as long as the call may last, and holds a thread and everything that
    has come so far. So a thread of `readers` reads it, which becomes free when the call is ended.

    Args:
        source: gRPC's iterator.
        readers: runs `next` on it.
        stall_s: longest wait for a part, in seconds.

    Raises (when iterated):
        NothingCame: no part came within `stall_s`; end the call.
    """

    def __init__(self, source: Iterator[pb.ReleasePart], readers: Executor, stall_s: float) -> None:
        self._source, self._readers, self._stall_s = source, readers, stall_s

    def __iter__(self) -> Iterator[pb.ReleasePart]:
        return self

    def __next__(self) -> pb.ReleasePart:
        waiting = self._readers.submit(next, self._source, None)
        if not wait([waiting], self._stall_s).done:
            raise NothingCame
        part = waiting.result()
        if part is None:
            raise StopIteration
        return part


def read_upload(
    authority: LocalAuthority, parts: Iterator[pb.ReleasePart]
) -> tuple[ReleaseRequest, list[bytes]]:
    """The whole request; what cannot be read is refused, and logged as unreadable.

    Raises:
        ReleaseRefused: malformed, or not allowed by the rules.
    """
    run, round = "?", 0
    try:
        header = _read_header(parts)
        run, round = header.run, header.round
        request = _read_request(header, parts, authority.most_receipts(run))
        authority.check(request)
        count, size = authority.chunk_limits(run)
        return request, _read_chunks(header, parts, count, size)
    except ProtocolError as error:
        authority.refuse_malformed(run, round, error.full_text)


def _read_header(parts: Iterator[pb.ReleasePart]) -> pb.ReleaseHeader:
    first = next(parts, None)
    if first is None or first.WhichOneof("part") != "header":
        raise ProtocolError("a release starts with its header")
    check_name("run", first.header.run)
    return first.header


def _read_request(
    header: pb.ReleaseHeader, parts: Iterator[pb.ReleasePart], most: int
) -> ReleaseRequest:
    if not is_hex(header.sum_hash, 64):
        raise ProtocolError("the hash of the sum is malformed")
    if header.receipts > most:
        raise ProtocolError(
            f"{header.receipts} receipts were announced; sums of this run have at most {most}"
        )
    receipts: list[Receipt] = []
    while len(receipts) < header.receipts:
        part = next(parts, None)
        if part is None or part.WhichOneof("part") != "receipt":
            raise ProtocolError(f"{len(receipts)} of {header.receipts} receipts arrived")
        if len(part.receipt) > MAX_RECEIPT_BYTES:
            raise ProtocolError(f"a receipt is longer than {MAX_RECEIPT_BYTES} bytes")
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
            raise ProtocolError("data follow that were not announced")
        if len(part.chunk) > size:
            raise ProtocolError(f"a ciphertext of run {header.run!r} is longer than {size} bytes")
        chunks.append(part.chunk)
    if len(chunks) < count:
        raise ProtocolError(f"{len(chunks)} of {count} ciphertexts arrived")
    return chunks
