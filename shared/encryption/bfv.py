"""BFV: exact sums of packed integers (Brakerski 2012; Fan and Vercauteren 2012), with TenSEAL.

Why these parameters suffice is proved in `calyx.shared.encryption.parameters`, and how bytes from
others are read safely is in `calyx.shared.encryption.wire`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tenseal as ts
from numpy.typing import NDArray

from calyx.shared.encryption.parameters import SealingParameters
from calyx.shared.encryption.wire import open_public_context, read_chunk


class BfvScheme:
    """See `calyx.shared.encryption.scheme.ChunkScheme`."""

    def __init__(self, parameters: SealingParameters, public_context: bytes) -> None:
        self._parameters = parameters
        self._context = open_public_context(public_context, parameters)

    def encrypt(self, slots: NDArray[np.int64]) -> bytes:
        """Encrypt int64 (slots_per_chunk,) in [-t/2, t)."""
        data: bytes = ts.bfv_vector(self._context, slots.tolist()).serialize()
        return data

    def read(self, chunk: bytes) -> Any:
        """Read one chunk as a ``ts.BFVVector``; raises EncryptionError."""
        return read_chunk(self._context, chunk, self._parameters)
