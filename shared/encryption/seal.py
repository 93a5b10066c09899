"""`PublicSealer`: what a contributor does with the public key."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from calyx.shared.encryption.pack import pack
from calyx.shared.encryption.parameters import SealingParameters
from calyx.shared.encryption.scheme import SealedVector, context_hash, open_scheme
from calyx.shared.errors import EncryptionError


class PublicSealer:
    """Packs and encrypts vectors; one for a run, used for every round.

    Args:
        parameters: the run's sealing parameters.
        public_context: the key authority's public context. That it really is the authority's
            must be known from elsewhere: its maker can read what is sealed with it.

    Raises:
        EncryptionError: the context is not a public one of these parameters.
    """

    def __init__(self, parameters: SealingParameters, public_context: bytes) -> None:
        self._parameters = parameters
        self._scheme = open_scheme(parameters, public_context)
        self._context = context_hash(public_context)

    def seal(self, values: NDArray[np.integer[Any]]) -> SealedVector:
        """Seal integers of shape (length,); see `pack` for what is refused."""
        return self.seal_slots(pack(values, self._parameters))

    def seal_slots(self, slots: NDArray[np.int64]) -> SealedVector:
        """Seal what `pack` returned; the caller may have replaced its check slots.

        Raises:
            EncryptionError: another shape or type, or a slot that would wrap.
        """
        p = self._parameters
        shape = (p.chunks, p.slots_per_chunk)
        if slots.dtype != np.int64 or slots.shape != shape:
            raise EncryptionError(
                f"slots to seal must be int64 of shape {shape}, not {slots.dtype} of {slots.shape}"
            )
        width = p.field_bits * p.fields_per_slot
        top = np.int64(1) << np.int64(width - 1)
        data, check = slots[:, :-1], slots[:, -1]
        fits = data.min() > -top and data.max() < top
        if not fits or check.min() < 0 or check.max() >= (p.plain_modulus or top):
            raise EncryptionError(f"a slot to seal does not fit its {width} bits and would wrap")
        # One ciphertext a call: TenSEAL prints a warning when a vector needs several.
        chunks = tuple(self._scheme.encrypt(chunk) for chunk in slots)
        return SealedVector(chunks, p.digest, self._context)
