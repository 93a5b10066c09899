"""What every sealing scheme offers, and the objects that pass between the parties.

`PublicSealer` and `Aggregator` are written against `ChunkScheme`; `open_scheme` picks BFV, CKKS
or plain sums, which one contract test suite holds to the same behaviour.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from calyx.shared.encryption.parameters import SealingParameters


@dataclass(frozen=True)
class SealedVector:
    """One contributor's upload: ciphertexts only, no key and no context.

    Attributes:
        chunks: one serialised ciphertext for each `SealingParameters.chunks`.
        parameters: digest of the parameters it was packed with.
        context: hash of the public context it was encrypted with.
    """

    chunks: tuple[bytes, ...] = field(repr=False)
    parameters: str
    context: str

    @property
    def size_bytes(self) -> int:
        """Bytes of all chunks."""
        return sum(map(len, self.chunks))

    @property
    def digest(self) -> str:
        """SHA-256 over all of it, hex; two honest uploads never have the same."""
        return _digest(self.parameters, self.context, self.chunks)


@dataclass(frozen=True)
class SealedSum:
    """A sum that only the key authority can read.

    Attributes:
        chunks: serialised ciphertexts.
        parameters: digest of the parameters.
        context: hash of the public context.
        contributors: how many vectors were added.
    """

    chunks: tuple[bytes, ...] = field(repr=False)
    parameters: str
    context: str
    contributors: int

    @property
    def digest(self) -> str:
        """SHA-256 over all but the count, hex."""
        return _digest(self.parameters, self.context, self.chunks)


class Chunk(Protocol):
    """One ciphertext in memory."""

    def add_(self, other: Self) -> Any:
        """Add `other` to this one, in place."""

    def serialize(self) -> bytes:
        """As bytes."""


class ChunkScheme(Protocol):
    """Encryption and checked reading of single chunks with public material only."""

    def encrypt(self, slots: NDArray[np.int64]) -> bytes:
        """Encrypt int64 (slots_per_chunk,) to one serialised chunk."""

    def read(self, chunk: bytes) -> Chunk:
        """Read one chunk.

        Raises:
            EncryptionError: it is not a fresh or summed ciphertext of these parameters.
        """


def open_scheme(parameters: SealingParameters, public_context: bytes) -> ChunkScheme:
    """The scheme of these parameters, with the public context that the authority made.

    Args:
        public_context: as serialised by the authority; must be empty for ``none``.

    Raises:
        EncryptionError: the context holds a secret key, is too large, cannot be read or is of
            other parameters.
    """
    if parameters.scheme == "none":
        from calyx.shared.encryption.plain import PlainScheme

        return PlainScheme(parameters, public_context)
    # TenSEAL takes a tenth of a second to import, so runs without sealing do not.
    if parameters.scheme == "bfv":
        from calyx.shared.encryption.bfv import BfvScheme

        return BfvScheme(parameters, public_context)
    from calyx.shared.encryption.ckks import CkksScheme

    return CkksScheme(parameters, public_context)


def context_hash(public_context: bytes) -> str:
    """SHA-256 of a public context, hex: its name after it was sent once."""
    return hashlib.sha256(public_context).hexdigest()


def _digest(parameters: str, context: str, chunks: Sequence[bytes]) -> str:
    state = hashlib.sha256(b"calyx sealed vector v1")
    for part in (parameters.encode(), context.encode(), *chunks):
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.hexdigest()
