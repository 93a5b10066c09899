"""The secrets of one run: the homomorphic key pair and the keys of the contribution tags.

`KeyPair` shows and exports nothing secret, not through its representation, pickling or copying; the
only way out is `save`, to a file that no one else can read. A run has a key pair of its own,
destroyed when it is closed: what leaks later opens no earlier run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import tenseal as ts
from numpy.typing import NDArray

from calyx.authority.keys.secret_file import read_secret, write_secret
from calyx.shared.encryption import SealingParameters
from calyx.shared.encryption.wire import export_public_context, read_chunk
from calyx.shared.errors import EncryptionError
from calyx.shared.protocol.sealed.receipts import Receipt
from calyx.shared.protocol.sealed.tags import TagKeys, weigh
from calyx.shared.protocol.signatures.signed import canonical, derive

_TAG_SECRET_BYTES = 32

Slots = NDArray[np.int64] | NDArray[np.float64]


class KeyPair:
    """Secret and public key of one run. Made by `generate` or `load`.

    Attributes:
        parameters: what it encrypts.
    """

    __slots__ = ("_context", "_public_context", "_tag_secret", "parameters")

    def __init__(
        self,
        parameters: SealingParameters,
        context: ts.Context,
        public_context: bytes,
        tag_secret: bytes,
    ) -> None:
        self.parameters, self._context = parameters, context
        self._public_context, self._tag_secret = public_context, tag_secret

    @classmethod
    def generate(cls, parameters: SealingParameters) -> KeyPair:
        """New keys from the operating system's entropy (SEAL's own generator is seeded by it).

        Raises:
            EncryptionError: parameters of a scheme without keys, or that SEAL refuses.
        """
        if parameters.scheme == "none":
            raise EncryptionError("plain sums have no key", hint="use bfv")
        is_bfv = parameters.scheme == "bfv"
        try:
            context = ts.context(
                ts.SCHEME_TYPE.BFV if is_bfv else ts.SCHEME_TYPE.CKKS,
                poly_modulus_degree=parameters.poly_modulus_degree,
                plain_modulus=parameters.plain_modulus if is_bfv else None,
                coeff_mod_bit_sizes=list(parameters.coeff_mod_bits),
                n_threads=1,
            )
        except (RuntimeError, ValueError) as error:
            raise EncryptionError(f"no key can be made for these parameters: {error}") from error
        if not is_bfv:
            context.global_scale = 2.0**parameters.scale_bits
        # Exported once: reading a ciphertext changes flags of TenSEAL's context and so its bytes,
        # and the hash of the public context is its name.
        public_context = export_public_context(context)
        return cls(parameters, context, public_context, os.urandom(_TAG_SECRET_BYTES))

    @classmethod
    def load(cls, path: Path, passphrase: bytes | None) -> KeyPair:
        """Read what `save` wrote.

        Raises:
            EncryptionError: missing, open to others, damaged, or another passphrase.
        """
        try:
            text, tag_secret, public_context, private = _split(read_secret(path, passphrase))
            parameters = SealingParameters.from_json(text.decode())
            context = ts.Context.load(private, n_threads=1)
        except (RuntimeError, ValueError) as error:
            raise EncryptionError(
                f"the secret key file {path} does not hold a readable key",
                hint="restore it from a copy",
            ) from error
        if not context.is_private():
            raise EncryptionError(
                f"the secret key file {path} holds no secret key",
                hint="restore it from a copy",
            )
        return cls(parameters, context, public_context, tag_secret)

    def save(self, path: Path, passphrase: bytes | None) -> None:
        """Write everything to a new file, 0600; see `calyx.authority.keys.secret_file`.

        Raises:
            EncryptionError: the file exists.
        """
        context = self._context.serialize(
            save_public_key=True,
            save_secret_key=True,
            save_galois_keys=False,
            save_relin_keys=False,
        )
        text = self.parameters.to_json().encode()
        parts = (text, self._tag_secret, self._public_context, context)
        payload = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        write_secret(path, payload, passphrase)

    def public_context(self) -> bytes:
        """Parameters and public key, for anyone; always the same bytes."""
        return self._public_context

    def tag_keys(self, contributors: Iterable[str]) -> dict[str, TagKeys]:
        """The keys of each contributor's tags; each is sealed to its contributor only."""
        weights = self._weights_key()
        return {
            name: TagKeys(weights, derive(self._tag_secret, canonical("pads-key", name)))
            for name in contributors
        }

    def read(self, chunks: Sequence[bytes]) -> list[Any]:
        """Parse the ciphertexts of a sum, without decrypting anything.

        Raises:
            EncryptionError: there are not as many as a sum has, or one is malformed.
        """
        if len(chunks) != self.parameters.chunks:
            raise EncryptionError(
                f"a sum has {self.parameters.chunks} ciphertexts; {len(chunks)} were sent"
            )
        return [read_chunk(self._context, chunk, self.parameters) for chunk in chunks]

    def decrypt(self, ciphertexts: Sequence[Any]) -> Slots:
        """Decrypt what `read` returned.

        Returns:
            (chunks, slots_per_chunk): int64 modulo t for BFV, float64 for CKKS.

        Raises:
            EncryptionError: SEAL cannot decrypt them.
        """
        try:
            rows = [vector.decrypt() for vector in ciphertexts]
        except (RuntimeError, ValueError) as error:
            raise EncryptionError("a ciphertext of the sum cannot be decrypted") from error
        if self.parameters.scheme == "bfv":
            return np.array(rows, dtype=np.int64)
        return np.array(rows, dtype=np.float64)

    def check_tags(self, slots: Slots, receipts: Sequence[Receipt]) -> None:
        """Check that decrypted slots are the sum of exactly the uploads with these receipts.

        Raises:
            EncryptionError: they are not; none of them may be used.
        """
        modulus = self.parameters.plain_modulus
        table = slots.astype(np.int64)
        keys = self.tag_keys(receipt.contributor for receipt in receipts)
        # Each contributor's check slot holds 1 before its tag is added
        # (`calyx.shared.encryption.pack`).
        due = (len(receipts) + weigh(self._weights_key(), table, modulus)) % modulus
        for receipt in receipts:
            pads = keys[receipt.contributor].pads(len(table), modulus, receipt.round, receipt.nonce)
            due = (due + pads) % modulus
        wrong = np.flatnonzero((table[:, -1] - due) % modulus)
        if wrong.size:
            raise EncryptionError(
                f"the tags of {wrong.size} of {len(table)} ciphertexts do not match; the first is "
                f"number {int(wrong[0])}"
            )

    def _weights_key(self) -> bytes:
        return derive(self._tag_secret, canonical("weights-key"))

    def __repr__(self) -> str:
        return f"KeyPair({self.parameters.scheme}, secret not shown)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise EncryptionError(
            "a secret key is neither pickled nor copied",
            hint="save it to a file",
        )

    def __getstate__(self) -> NoReturn:
        raise EncryptionError(
            "a secret key is neither pickled nor copied",
            hint="save it to a file",
        )


def _split(payload: bytes) -> list[bytes]:
    parts, at = [], 0
    while at < len(payload):
        size = int.from_bytes(payload[at : at + 4])
        parts.append(payload[at + 4 : at + 4 + size])
        at += 4 + size
    return parts
