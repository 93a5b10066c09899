"""One-time authentication tags, which add up with the data that they are put beside.

**Why tags.** BFV is malleable: a server could hand in one client's ciphertext as "the sum", mask
some clients' slots, or send a crafted ciphertext whose decryption reveals the secret key.
Receipts say nothing about the sum, so they stop none of it. Therefore a one-time authentication
tag (Wegman and Carter 1981), modulo the prime plain modulus t, is added to the last slot of every
ciphertext, which otherwise holds a public constant::

    tag[c] = Σ_j w[j]·slot[c, j] + pad[c]   (mod t)

All contributors of a run share the weights w; pads are fresh for each contributor, round, nonce
and chunk. Both come from keys that the authority seals to each contributor and the server never
sees. Tags add up like the data: the authority decrypts slots S with tag T and accepts them only
if T = Σ_j w[j]·S[j] + Σ_i pad_i over exactly the contributors with receipts.

*Argument.* Uniform one-time pads make all tags independent of w, even to someone who knows every
plaintext. If S differs from the true sum, the difference has a non-zero coordinate j, and T fits
for one value of w[j] only: a chance below 2/t a try, whatever was done to the ciphertexts. Tries
are limited (`calyx.authority.release`). *Not covered:* a contributor who gives its tag keys to the
server, or lies about its own values; CKKS, whose sums are not exact and carry no tags.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

from calyx.shared.errors import ProtocolError
from calyx.shared.protocol.signatures.signed import canonical, derive

MAX_TAG_MODULUS_BITS = 50


@dataclass(frozen=True)
class TagKeys:
    """One contributor's keys for the tags of one run.

    Attributes:
        weights_key: 32 bytes, the same for every contributor of the run.
        pads_key: 32 bytes, this contributor's own.
    """

    weights_key: bytes = field(repr=False)
    pads_key: bytes = field(repr=False)

    def tagged(
        self, slots: NDArray[np.int64], modulus: int, round: int, nonce: str
    ) -> NDArray[np.int64]:
        """Packed slots, ready to be encrypted, with the tags added to their last column.

        Args:
            slots: int64 (chunks, width), one row a ciphertext; its last number is the check slot.
            modulus: the prime plain modulus t.
            round, nonce: as in the receipt. A nonce is used for one upload only.

        Returns:
            A copy; the last column is in [0, t).
        """
        tagged = slots.copy()
        tagged[:, -1] += weigh(self.weights_key, slots, modulus)
        tagged[:, -1] += self.pads(len(slots), modulus, round, nonce)
        tagged[:, -1] %= modulus
        return tagged

    def pads(self, chunks: int, modulus: int, round: int, nonce: str) -> NDArray[np.int64]:
        """One pad a chunk, int64 (chunks,) in [0, t), within t·2^-128 of uniform."""
        stream = keystream(derive(self.pads_key, canonical("pads", round, nonce)), 16 * chunks)
        words = [stream[start : start + 16] for start in range(0, len(stream), 16)]
        return np.array([int.from_bytes(word) % modulus for word in words], dtype=np.int64)


def weigh(weights_key: bytes, slots: NDArray[np.int64], modulus: int) -> NDArray[np.int64]:
    """Σ_j w[j]·slots[c, j] mod t over all columns but the last, int64 (chunks,).

    Raises:
        ProtocolError: t has more than 50 bits (a row's sum of products could wrap).
    """
    bits = modulus.bit_length()
    if bits > MAX_TAG_MODULUS_BITS:
        raise ProtocolError(
            f"plain modulus {modulus} is too large for tags",
            hint="use at most 50 bits",
        )
    t = np.uint64(modulus)
    data = (slots[:, :-1] % modulus).astype(np.uint64)
    weights = np.frombuffer(keystream(weights_key, 8 * data.shape[1]), dtype="<u8") % t
    # Horner's rule over limbs of the weights, so short that limb times slot stays below 2^63.
    limb_bits = 63 - bits
    total = np.zeros(len(data), dtype=np.uint64)
    for shift in reversed(range(0, bits, limb_bits)):
        limb = (weights >> np.uint64(shift)) & np.uint64(2**limb_bits - 1)
        total = ((total << np.uint64(limb_bits)) + (data * limb % t).sum(axis=1)) % t
    return total.astype(np.int64)


def keystream(key: bytes, size: int) -> bytes:
    """`size` bytes of ChaCha20."""
    # Every key is derived for one purpose, so the counter can start at nought.
    return Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor().update(bytes(size))
