"""Ciphertexts as an attacker without the secret key can use them: as numbers.

A BFV ciphertext is two polynomials, given by their residues. Anyone who has the public key can
parse them, encrypt any value, and add or subtract. If encryption were weak, something of the update
would show in the residues, and a guessed update would fit better than a wrong one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calyx.shared.encryption import PublicSealer, SealingParameters, pack
from calyx.shared.encryption.wire import open_public_context, read_chunk

Floats = NDArray[np.float64]


class PublicKeyHolder:
    """What anyone can do with ciphertexts and the public key.

    Args:
        parameters: the run's, which are public.
        public_context: the authority's public key, as sent to clients.
    """

    def __init__(self, parameters: SealingParameters, public_context: bytes) -> None:
        self._parameters = parameters
        self._context = open_public_context(public_context, parameters)
        self._sealer = PublicSealer(parameters, public_context)

    def encrypt(self, values: NDArray[np.int64]) -> tuple[bytes, ...]:
        """Encrypt chosen integers (length,)."""
        return self._sealer.seal_slots(pack(values, self._parameters)).chunks

    def numbers(self, chunks: Sequence[bytes], count: int) -> Floats:
        """The first residues of the first polynomial, centred, float64 (count,)."""
        return self._numbers([self._read(chunk) for chunk in chunks], count)

    def difference(self, chunks: Sequence[bytes], others: Sequence[bytes], count: int) -> Floats:
        """The same of the difference, which is a ciphertext of the difference."""
        pairs = zip(chunks, others, strict=True)
        return self._numbers([self._read(a).sub(self._read(b)) for a, b in pairs], count)

    def _read(self, chunk: bytes) -> Any:
        return read_chunk(self._context, chunk, self._parameters)

    def _numbers(self, vectors: Sequence[Any], count: int) -> Floats:
        each = -(-count // len(vectors))
        degree = self._parameters.poly_modulus_degree
        parts = []
        for vector in vectors:
            (ciphertext,) = vector.ciphertext()
            size = degree * ciphertext.coeff_modulus_size() * ciphertext.size()
            taken = np.array([ciphertext[i] for i in range(min(each, size))], dtype=np.float64)
            # Residues by different primes have different ranges.
            for start in range(0, len(taken), degree):
                row = taken[start : start + degree]
                row -= row.mean()
                row /= max(float(row.std()), 1.0)
            parts.append(np.resize(taken, each))
        return np.concatenate(parts)[:count]


def correlation(a: Floats, b: Floats) -> float:
    """Pearson's, of two vectors of numbers."""
    return float(np.corrcoef(a, b)[0, 1])
