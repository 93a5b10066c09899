"""`Aggregator`: what the server does with sealed vectors. It can add them and nothing else."""

from __future__ import annotations

from collections.abc import Collection

from calyx.shared.encryption.parameters import SealingParameters
from calyx.shared.encryption.scheme import Chunk, SealedSum, SealedVector, context_hash, open_scheme
from calyx.shared.errors import EncryptionError


class Aggregator:
    """Adds sealed vectors as they arrive, in memory that does not grow with their number.

    One sum and one upload are in memory at a time, plus 64 bytes a contributor for the digests
    that tell a replay. A refused vector changes nothing. Not to be shared between threads.

    Args:
        parameters: the run's sealing parameters.
        public_context: the key authority's public context.
        replayed: digests of uploads of earlier rounds; they are refused.

    Raises:
        EncryptionError: the context is not a public one of these parameters.
    """

    def __init__(
        self,
        parameters: SealingParameters,
        public_context: bytes,
        *,
        replayed: Collection[str] = (),
    ) -> None:
        self._parameters = parameters
        self._digest = parameters.digest
        self._scheme = open_scheme(parameters, public_context)
        self._context = context_hash(public_context)
        self._replayed = frozenset(replayed)
        self._seen: set[str] = set()
        self._sum: list[Chunk] = []

    @property
    def contributors(self) -> int:
        """Vectors added so far."""
        return len(self._seen)

    @property
    def digests(self) -> frozenset[str]:
        """Digests of the vectors added so far."""
        return frozenset(self._seen)

    def add(self, sealed: SealedVector) -> None:
        """Add one vector.

        Raises:
            EncryptionError: it is malformed, oversized, of other parameters or another context,
                was added before, or the sum is full. The sum is unchanged.
        """
        p = self._parameters
        if sealed.parameters != self._digest:
            raise EncryptionError("the sealed vector was made with other sealing parameters")
        if sealed.context != self._context:
            raise EncryptionError("the sealed vector was encrypted with another public key")
        if len(sealed.chunks) != p.chunks:
            raise EncryptionError(
                f"the sealed vector has {len(sealed.chunks)} chunks; {p.chunks} are expected"
            )
        # Before hashing or parsing: a long chunk should cost the sender, not this server.
        for index, chunk in enumerate(sealed.chunks):
            if len(chunk) > p.max_chunk_bytes:
                raise EncryptionError(
                    f"chunk {index} of the sealed vector has {len(chunk)} bytes; "
                    f"{p.max_chunk_bytes} are allowed"
                )
        if self.contributors >= p.contributors:
            raise EncryptionError(
                f"the sum already holds {p.contributors} vectors, as many as its fields allow"
            )
        digest = sealed.digest
        if digest in self._seen or digest in self._replayed:
            raise EncryptionError(
                "the sealed vector was received before, and a replay is not added"
            )
        # All chunks are read before the first is added, so that a refusal leaves no trace.
        addends = [self._scheme.read(chunk) for chunk in sealed.chunks]
        if self._sum:
            for total, addend in zip(self._sum, addends, strict=True):
                total.add_(addend)
        else:
            self._sum = addends
        self._seen.add(digest)

    def finish(self) -> SealedSum:
        """The sum so far.

        Raises:
            EncryptionError: nothing was added.
        """
        if not self._sum:
            raise EncryptionError("there is no sum: no sealed vector was accepted")
        chunks = tuple(chunk.serialize() for chunk in self._sum)
        return SealedSum(chunks, self._digest, self._context, self.contributors)
