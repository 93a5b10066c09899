"""Sealed sums: quantise, pack, encrypt with the public key, add, unpack.

::

    client      quantise → pack → (tag) → encrypt      PublicSealer
    server      add as they arrive                     Aggregator
    authority   decrypt the sum → unpack               unpack_sum

Everything here works with public material. Key pairs are made, and sums decrypted, in
`authority` only.
"""

from calyx.shared.encryption.aggregate import Aggregator
from calyx.shared.encryption.pack import pack, unpack_sum
from calyx.shared.encryption.parameters import (
    SealingParameters,
    derive_parameters,
    largest_value_bound,
    value_bound_of_bits,
)
from calyx.shared.encryption.scheme import SealedSum, SealedVector, context_hash
from calyx.shared.encryption.seal import PublicSealer

__all__ = [
    "Aggregator",
    "PublicSealer",
    "SealedSum",
    "SealedVector",
    "SealingParameters",
    "context_hash",
    "derive_parameters",
    "largest_value_bound",
    "pack",
    "unpack_sum",
    "value_bound_of_bits",
]
