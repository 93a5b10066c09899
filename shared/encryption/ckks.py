"""CKKS: approximate sums (Cheon, Kim, Kim, Song 2017), with TenSEAL, for those who need it.

The same integers are packed as for BFV, encoded as floats, and rounded back after decryption; the
precision bound is in `calyx.shared.encryption.parameters`. It costs several times BFV's time and
bytes and gives nothing that BFV does not. An approximate decryption carries traces of the secret
key (Li and Micciancio 2021), so only rounded sums may leave the authority.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tenseal as ts
from numpy.typing import NDArray

from calyx.shared.encryption.parameters import SealingParameters
from calyx.shared.encryption.wire import open_public_context, read_chunk


class CkksScheme:
    """See `calyx.shared.encryption.scheme.ChunkScheme`."""

    def __init__(self, parameters: SealingParameters, public_context: bytes) -> None:
        self._parameters = parameters
        self._context = open_public_context(public_context, parameters)

    def encrypt(self, slots: NDArray[np.int64]) -> bytes:
        """Encrypt int64 (slots_per_chunk,)."""
        values = slots.astype(np.float64).tolist()
        data: bytes = ts.ckks_vector(self._context, values).serialize()
        return data

    def read(self, chunk: bytes) -> Any:
        """Read one chunk as a ``ts.CKKSVector``; raises EncryptionError."""
        return read_chunk(self._context, chunk, self._parameters)
