"""Plain sums behind the interface of the sealed ones: no encryption, the server sees everything.

For tests and for measuring what encryption costs. A chunk is 16 random bytes, so that equal
vectors are not taken for replays, and little-endian int64 slots.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calyx.shared.encryption.parameters import SealingParameters
from calyx.shared.errors import EncryptionError

_NONCE_BYTES = 16


class PlainChunk:
    """Slots in clear."""

    def __init__(self, slots: NDArray[np.int64]) -> None:
        self.slots = slots

    def add_(self, other: PlainChunk) -> None:
        """Add in place."""
        self.slots += other.slots

    def serialize(self) -> bytes:
        """Nonce and slots."""
        return secrets.token_bytes(_NONCE_BYTES) + self.slots.astype("<i8").tobytes()


class PlainScheme:
    """See `calyx.shared.encryption.scheme.ChunkScheme`."""

    def __init__(self, parameters: SealingParameters, public_context: bytes) -> None:
        if public_context:
            raise EncryptionError(
                "the public context of plain sums must be empty, because they have no key"
            )
        self._slots = parameters.slots_per_chunk
        self._limit = parameters.contributors * parameters.value_bound

    def encrypt(self, slots: NDArray[np.int64]) -> bytes:
        """Serialise int64 (slots_per_chunk,)."""
        return PlainChunk(slots).serialize()

    def read(self, chunk: bytes) -> PlainChunk:
        """Read one chunk; a slot that no sum can reach is refused.

        Raises:
            EncryptionError: wrong length or a slot out of range.
        """
        if len(chunk) != _NONCE_BYTES + 8 * self._slots:
            raise EncryptionError(f"a plain chunk of {len(chunk)} bytes is malformed")
        slots = np.frombuffer(chunk, dtype="<i8", offset=_NONCE_BYTES).astype(np.int64)
        if slots.min() < -self._limit or slots.max() > self._limit:
            raise EncryptionError("a plain chunk holds a value out of bounds")
        return PlainChunk(slots)


def read_plain_sum(chunks: Sequence[bytes], parameters: SealingParameters) -> NDArray[np.int64]:
    """What decryption is for the others: int64 (chunks, slots_per_chunk) for `unpack_sum`."""
    scheme = PlainScheme(parameters, b"")
    return np.stack([scheme.read(chunk).slots for chunk in chunks])
