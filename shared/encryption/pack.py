"""Signed integers into the slots of ciphertexts, and sums of slots back into sums of integers.

A slot holds F fields of f bits as balanced digits, ``slot = Σ_j v_j 2^(f j)``; entry i of the
vector is field ``i // S`` of data slot ``i % S``, with S = chunks times data slots. Adding slots
adds fields; that no field carries into the next is proved in `parameters.derive_parameters`.

**The last slot of each chunk is a check slot.** `pack` writes 1 there, so in a true sum of n
vectors it is n. Batching maps a plaintext polynomial to its values at the roots of x^N + 1
modulo t, so a change of the polynomial changes the check slot as much as any other: one altered
coefficient always changes it, and noise that overflows, another key or a corrupted ciphertext
leaves it right by chance only, about 1 in t a chunk (t is above 2^17, usually about 2^40). So an
accident is an error and not a wrong number. Against a *dishonest* aggregator the mark is worth
nothing, for it can be forged; then the caller overwrites the check slots with keyed tags that
add up modulo t, and verifies those itself.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from calyx.shared.encryption.parameters import SealingParameters
from calyx.shared.errors import EncryptionError

# A CKKS slot further than this from an integer has more error than the scheme allows for.
_MAX_ROUNDING_ERROR = 0.25


def pack(values: NDArray[np.integer[Any]], parameters: SealingParameters) -> NDArray[np.int64]:
    """Pack one vector.

    Args:
        values: integers, (length,), each at most ``value_bound`` in absolute value.

    Returns:
        int64 (chunks, slots_per_chunk), 1 in the last column.

    Raises:
        EncryptionError: another shape or type, or a value out of bounds.
    """
    p = parameters
    if values.dtype.kind not in "iu" or values.shape != (p.length,):
        raise EncryptionError(
            f"a vector to seal must be integers of shape ({p.length},), not {values.dtype} of "
            f"shape {values.shape}"
        )
    # Extremes, not abs(): the absolute value of the least int64 is negative.
    low, high = int(values.min()), int(values.max())
    if low < -p.value_bound or high > p.value_bound:
        raise EncryptionError(
            f"a value to seal is {low if -low > high else high}; the bound is {p.value_bound}",
            hint="clip it, or derive the parameters for a larger bound",
        )
    fields = np.zeros((p.fields_per_slot, p.chunks * p.data_slots), dtype=np.int64)
    fields.reshape(-1)[: p.length] = values
    slots = fields[-1]
    for field in fields[-2::-1]:
        slots = (slots << p.field_bits) + field
    packed = np.ones((p.chunks, p.slots_per_chunk), dtype=np.int64)
    packed[:, :-1] = slots.reshape(p.chunks, p.data_slots)
    return packed


def unpack_sum(
    slots: NDArray[np.int64] | NDArray[np.float64],
    parameters: SealingParameters,
    contributors: int,
    *,
    check: Literal["count", "caller"] = "count",
) -> NDArray[np.int64]:
    """Unpack the decrypted sum of `contributors` packed vectors.

    Args:
        slots: chunks times slots_per_chunk numbers in any shape; int64, or float64 from CKKS.
        contributors: how many vectors were added.
        check: ``count`` if the check slots hold `pack`'s mark; ``caller`` if the caller wrote
            something else there and has verified it.

    Returns:
        int64 (length,): the sums.

    Raises:
        EncryptionError: the numbers cannot be such a sum. They must not be used.
    """
    p = parameters
    if not 1 <= contributors <= p.contributors:
        raise EncryptionError(
            f"a sum of {contributors} vectors was decrypted; the parameters allow 1 to "
            f"{p.contributors}",
            hint="derive them for the largest cohort",
        )
    if slots.size != p.chunks * p.slots_per_chunk:
        raise EncryptionError(
            f"the decrypted sum has {slots.size} slots; {p.chunks * p.slots_per_chunk} are expected"
        )
    table = _as_integers(slots).reshape(p.chunks, p.slots_per_chunk)
    if check == "count" and (wrong := np.flatnonzero(table[:, -1] != contributors)).size:
        raise EncryptionError(
            f"chunk {int(wrong[0])} of the sum does not hold {contributors} contributions: a "
            "ciphertext was corrupted, left out, counted twice or made for another key",
            hint="discard the round",
        )
    rest = table[:, :-1].reshape(-1)
    fields = np.empty((p.fields_per_slot, rest.size), dtype=np.int64)
    half = np.int64(1) << np.int64(p.field_bits - 1)
    for field in fields:
        # The low f bits as a signed number; what is left of the slot is then divisible by 2^f.
        field[:] = ((rest + half) & (2 * half - 1)) - half
        rest = (rest - field) >> p.field_bits
    sums, padding = np.split(fields.reshape(-1), [p.length])
    limit = contributors * p.value_bound
    if rest.any() or padding.any() or sums.min() < -limit or sums.max() > limit:
        raise EncryptionError(
            f"the decrypted sum holds a field that {contributors} values up to {p.value_bound} "
            "cannot add up to: a ciphertext was corrupted or a contributor broke its bound",
            hint="discard the round",
        )
    return sums


def _as_integers(slots: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.int64]:
    if slots.dtype.kind != "f":
        return slots.astype(np.int64, copy=False)
    # Doubles count exactly to 2^53; written so that NaN fails it too.
    is_countable = (np.abs(slots) < 2**52).all()
    if not is_countable or (np.abs(slots - np.rint(slots)) > _MAX_ROUNDING_ERROR).any():
        raise EncryptionError(
            "the decrypted sum is not close to integers: a ciphertext was corrupted or its "
            "precision is used up",
            hint="discard the round",
        )
    return np.rint(slots).astype(np.int64)
