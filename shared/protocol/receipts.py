"""What a contributor puts beside its ciphertexts: contribution tags and a signed receipt.

::

    authority ── Admission (signed; holds sealed TagKeys) ──▶ contributor    once a run
    contributor: pack, TagKeys.tagged, seal_slots, Receipt(...).signed
    contributor ── ciphertexts + Receipt ──▶ server ── sum + receipts ──▶ authority

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

*Argument.* Uniform one-time pads make all tags independent of w, even to somebody who knows every
plaintext. If S differs from the true sum, the difference has a non-zero coordinate j, and T fits
for one value of w[j] only: a chance below 2/t a try, whatever was done to the ciphertexts. Tries
are limited (`authority.release`). *Not covered:* a contributor who gives its tag keys to the
server, or lies about its own values; CKKS, whose sums are not exact and carry no tags.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar, cast, get_type_hints

import numpy as np
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from shared.errors import ProtocolError

MAX_NAME = 100
MAX_ROUND = 2**31 - 1
MAX_TAG_MODULUS_BITS = 50

_T = TypeVar("_T")


@dataclass(frozen=True)
class ContributorKeys:
    """A contributor's public keys: its enrolment request.

    Attributes:
        name: stable name, unique at an authority.
        verify_key: Ed25519 public key, 32 bytes; receipts verify under it.
        seal_key: X25519 public key, 32 bytes; admissions are sealed to it.
        signature: by the signing key over the three above: proof that the sender holds it.
    """

    name: str
    verify_key: bytes
    seal_key: bytes
    signature: bytes = b""

    @classmethod
    def of(
        cls, name: str, signing: Ed25519PrivateKey, sealing: X25519PrivateKey
    ) -> ContributorKeys:
        """The request of the holder of these private keys."""
        verify_key = signing.public_key().public_bytes_raw()
        keys = cls(name, verify_key, sealing.public_key().public_bytes_raw())
        return replace(keys, signature=signing.sign(keys._signed_bytes()))

    def _signed_bytes(self) -> bytes:
        return canonical("enrolment", self.name, self.verify_key, self.seal_key)

    def to_json(self) -> str:
        """As text, keys in hexadecimal."""
        return _to_json(self)

    @classmethod
    def from_json(cls, text: str) -> ContributorKeys:
        """Read and verify a request.

        Raises:
            ProtocolError: malformed, or not signed by its own key.
        """
        keys = _from_json(cls, text)
        check_name("contributor", keys.name)
        authentic = verifies(keys.verify_key, keys.signature, keys._signed_bytes())
        if len(keys.seal_key) != 32 or not authentic:
            raise ProtocolError(
                f"the enrolment request of {keys.name!r} is not signed by its own key; "
                "make a new one on that device"
            )
        return keys


@dataclass(frozen=True)
class Receipt:
    """A contributor's signed word on one upload.

    Attributes:
        run, round: what the upload is for.
        contributor: enrolled name.
        parameters_digest: of the sealing parameters it was made with, 64 hex digits.
        upload_hash: `SealedVector.digest` of the upload.
        nonce: from `fresh_nonce`; the pads of the upload's tags were derived with it.
        signature: Ed25519 over all of it.
    """

    run: str
    round: int
    contributor: str
    parameters_digest: str
    upload_hash: str
    nonce: str
    signature: bytes = b""

    def signed(self, key: Ed25519PrivateKey) -> Receipt:
        """This receipt with the signature of its contributor."""
        self._check()
        return replace(self, signature=key.sign(self.signed_bytes()))

    def signed_bytes(self) -> bytes:
        """What the signature covers."""
        digests = (self.parameters_digest, self.upload_hash, self.nonce)
        return canonical("receipt", self.run, self.round, self.contributor, *digests)

    def verify(self, verify_key: bytes) -> bool:
        """Whether it was signed by the holder of `verify_key`."""
        return verifies(verify_key, self.signature, self.signed_bytes())

    def to_json(self) -> str:
        """As text, for the message that carries the upload."""
        return _to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Receipt:
        """Read a receipt; its signature is checked by `verify` only.

        Raises:
            ProtocolError: malformed or out of range.
        """
        receipt = _from_json(cls, text)
        receipt._check()
        return receipt

    def _check(self) -> None:
        check_name("run", self.run)
        check_name("contributor", self.contributor)
        digests = ((self.parameters_digest, 64), (self.upload_hash, 64), (self.nonce, 32))
        in_range = 1 <= self.round <= MAX_ROUND
        if not in_range or not all(is_hex(text, digits) for text, digits in digests):
            raise ProtocolError(
                f"the receipt of {self.contributor!r} has a round, digest or nonce out of range"
            )


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
        stream = _keystream(derive(self.pads_key, canonical("pads", round, nonce)), 16 * chunks)
        words = [stream[start : start + 16] for start in range(0, len(stream), 16)]
        return np.array([int.from_bytes(word) % modulus for word in words], dtype=np.int64)


def weigh(weights_key: bytes, slots: NDArray[np.int64], modulus: int) -> NDArray[np.int64]:
    """Σ_j w[j]·slots[c, j] mod t over all columns but the last, int64 (chunks,).

    Raises:
        ProtocolError: t has more than 50 bits (a row's sum of products could wrap).
    """
    bits = modulus.bit_length()
    if bits > MAX_TAG_MODULUS_BITS:
        raise ProtocolError(f"plain modulus {modulus} is too large for tags; use 50 bits at most")
    t = np.uint64(modulus)
    data = (slots[:, :-1] % modulus).astype(np.uint64)
    weights = np.frombuffer(_keystream(weights_key, 8 * data.shape[1]), dtype="<u8") % t
    # Horner's rule over limbs of the weights, so short that limb times slot stays below 2^63.
    limb_bits = 63 - bits
    total = np.zeros(len(data), dtype=np.uint64)
    for shift in reversed(range(0, bits, limb_bits)):
        limb = (weights >> np.uint64(shift)) & np.uint64(2**limb_bits - 1)
        total = ((total << np.uint64(limb_bits)) + (data * limb % t).sum(axis=1)) % t
    return total.astype(np.int64)


@dataclass(frozen=True)
class Admission:
    """The authority's signed word to one contributor of a run.

    From it a contributor knows that the public key is the authority's and not the server's, how
    many contributors a released sum has at least, and how to tag its uploads.

    Attributes:
        run, contributor: whom it is for.
        parameters_digest: of the sealing parameters of the run.
        context_hash: SHA-256 of the public context, hex.
        min_contributors: no sum of fewer is released in this run.
        is_tagged: whether a sum is released only with valid tags; false for CKKS.
        sealed: the contributor's `TagKeys`, encrypted to its seal key.
        signature: Ed25519 by the authority over all of it.
    """

    run: str
    contributor: str
    parameters_digest: str
    context_hash: str
    min_contributors: int
    is_tagged: bool
    sealed: bytes = b""
    signature: bytes = b""

    def issue(self, signing: Ed25519PrivateKey, seal_key: bytes, keys: TagKeys) -> Admission:
        """This admission with `keys` sealed to X25519 `seal_key`, signed by the authority."""
        ephemeral = X25519PrivateKey.generate()
        point = ephemeral.public_key().public_bytes_raw()
        secret = ephemeral.exchange(X25519PublicKey.from_public_bytes(seal_key))
        plain = keys.weights_key + keys.pads_key
        # The key of the box is used once, so its nonce may be constant.
        box = _box(secret, point, seal_key).encrypt(bytes(12), plain, self._terms())
        sealed = replace(self, sealed=point + box)
        return replace(sealed, signature=signing.sign(sealed._signed_bytes()))

    def open(
        self, sealing: X25519PrivateKey, authority_key: bytes, public_context: bytes
    ) -> TagKeys:
        """Check signature and public key, and unseal the tag keys.

        The caller compares `run`, `contributor`, `parameters_digest` and `min_contributors`
        with what it was told and what its owner's policy asks for.

        Args:
            sealing: the contributor's private key.
            authority_key: the authority's Ed25519 key as pinned at enrolment, 32 bytes.
            public_context: as received from the server.

        Raises:
            ProtocolError: of another authority, public key or device, or altered.
        """
        if not verifies(authority_key, self.signature, self._signed_bytes()):
            raise ProtocolError(
                f"the admission to run {self.run!r} is not signed by the key authority that this "
                "device trusts; do not take part, and ask the operator"
            )
        if hashlib.sha256(public_context).hexdigest() != self.context_hash:
            raise ProtocolError(
                f"the public key received for run {self.run!r} is not the key authority's; "
                "do not take part, and ask the operator"
            )
        point, body = self.sealed[:32], self.sealed[32:]
        try:
            secret = sealing.exchange(X25519PublicKey.from_public_bytes(point))
            box = _box(secret, point, sealing.public_key().public_bytes_raw())
            plain = box.decrypt(bytes(12), body, self._terms())
        except (InvalidTag, ValueError) as error:
            raise ProtocolError(
                f"the admission of {self.contributor!r} to run {self.run!r} is sealed to another "
                "device's key; enrol this device again"
            ) from error
        return TagKeys(plain[:32], plain[32:])

    def _terms(self) -> bytes:
        names = (self.run, self.contributor, self.parameters_digest, self.context_hash)
        return canonical("admission", *names, self.min_contributors, int(self.is_tagged))

    def _signed_bytes(self) -> bytes:
        return self._terms() + canonical("sealed", self.sealed)

    def to_json(self) -> str:
        """As text, for the message that carries it."""
        return _to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Admission:
        """Read an admission; nothing is verified before `open`.

        Raises:
            ProtocolError: malformed.
        """
        return _from_json(cls, text)


def fresh_nonce() -> str:
    """The nonce of one upload: 16 bytes of system entropy, hex."""
    return secrets.token_hex(16)


def canonical(domain: str, *parts: str | int | bytes) -> bytes:
    """Bytes to sign, hash or bind: no two (domain, parts) of a domain give the same ones."""
    out = bytearray()
    for part in (f"calyx/{domain}/v1", *parts):
        raw = part if isinstance(part, bytes) else str(part).encode()
        out += len(raw).to_bytes(8, "big") + raw
    return bytes(out)


def check_name(kind: str, name: str) -> None:
    """Raise ProtocolError unless `name` is 1 to 100 printable characters."""
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise ProtocolError(f"the name of a {kind} must be 1 to {MAX_NAME} printable characters")


def is_hex(text: str, digits: int) -> bool:
    """Whether `text` is that many lower-case hexadecimal digits."""
    return re.fullmatch(f"[0-9a-f]{{{digits}}}", text) is not None


def verifies(verify_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` is Ed25519 over `message` by `verify_key`; malformed ones are not."""
    try:
        Ed25519PublicKey.from_public_bytes(verify_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def derive(secret: bytes, info: bytes) -> bytes:
    """32 bytes by HKDF-SHA-256: independent keys for different `info`."""
    return HKDF(hashes.SHA256(), 32, salt=None, info=info).derive(secret)


def _box(secret: bytes, point: bytes, seal_key: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(derive(secret, canonical("box", point, seal_key)))


def _keystream(key: bytes, size: int) -> bytes:
    # Every key is derived for one purpose, so the counter can start at nought.
    return Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor().update(bytes(size))


def _to_json(record: Any) -> str:
    values = {k: v.hex() if isinstance(v, bytes) else v for k, v in asdict(record).items()}
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def _from_json(kind: type[_T], text: str) -> _T:
    """Exactly the fields of `kind`, each of its exact type."""
    hints = get_type_hints(kind)
    names = [f.name for f in fields(cast(Any, kind))]
    try:
        raw = json.loads(text)
        if not isinstance(raw, dict) or sorted(raw) != sorted(names):
            raise ValueError("the fields are not those expected")
        values = {n: bytes.fromhex(raw[n]) if hints[n] is bytes else raw[n] for n in names}
        if wrong := [n for n in names if type(values[n]) is not hints[n]]:
            raise ValueError(f"field {wrong[0]} has the wrong type")
    except (TypeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ProtocolError(f"a {kind.__name__} could not be read: {reason}") from error
    return kind(**values)
