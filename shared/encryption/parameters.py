"""Parameters of a sealed sum, derived by one function from what has to be added up.

>>> p = derive_parameters(scheme="bfv", contributors=32, value_bound=8191, length=421_642)
>>> p.fields_per_slot, p.field_bits, p.chunks, round(p.expansion, 2)
(2, 19, 52, 1.9)

Only scheme, contributors, value bound and length are chosen; everything else follows. A set of
parameters that another party sends is accepted only if deriving it again gives the same, so
no party can be talked into weaker encryption or into fields that overflow.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from calyx.shared.errors import EncryptionError

Scheme = Literal["none", "bfv", "ckks"]

MAX_CONTRIBUTORS = 100_000
MAX_LENGTH = 2**30

# Coefficient moduli in bits, data prime(s) first; the last prime is SEAL's key-switching prime
# and carries no data. SEAL refuses contexts below 128-bit security: at N = 4096 the total may
# be 109 bits, at N = 8192 218 bits (Homomorphic Encryption Standard 2018).
_RING: dict[Scheme, tuple[int, tuple[int, ...]]] = {
    "none": (4096, ()),
    "bfv": (4096, (54, 55)),
    "ckks": (8192, (60, 40, 40)),
}
# Largest sum of all field bits of a slot. BFV is bounded by its noise instead, see
# `derive_parameters`. CKKS: doubles hold 53 bits, and encoding and decoding lose about ten.
# Plain: 45 bits times the most contributors still fit 63 bits, whatever a chunk says.
_MAX_SLOT_BITS: dict[Scheme, int] = {"none": 45, "bfv": 60, "ckks": 40}
_CKKS_SCALE_BITS = 40
# Serialised size of one fresh chunk, in bytes. SEAL stores 54-bit residues in 64-bit words and
# compresses with zstd; the size varies by some ten bytes from one ciphertext to the next.
_TYPICAL_CHUNK_BYTES: dict[Scheme, int] = {"none": 32_784, "bfv": 61_735, "ckks": 235_100}
_CHUNK_FRAMING_BYTES = 1024
# An overflowing noise term in any of 2^32 ring coefficients has at most this log2 probability.
_FAILURE_BITS, _COEFFICIENT_BITS = 40, 32


@dataclass(frozen=True)
class SealingParameters:
    """How integer vectors are packed, encrypted, added and unpacked. Made by `derive_parameters`.

    Attributes:
        scheme: ``bfv``, ``ckks``, or ``none`` for plain sums behind the same interface.
        contributors: most vectors that may be added up.
        value_bound: largest absolute value B of any one entry of any one vector.
        length: entries of a vector.
        field_bits: width f of a field; `contributors` times `value_bound` is below 2^(f-1).
        fields_per_slot: entries that share one slot.
        poly_modulus_degree: ring degree N.
        coeff_mod_bits: bits of the primes of the coefficient modulus.
        plain_modulus: BFV's prime t, congruent to 1 modulo 2N; 0 for the others.
        scale_bits: log2 of the CKKS scale; 0 for the others.
    """

    scheme: Scheme
    contributors: int
    value_bound: int
    length: int
    field_bits: int
    fields_per_slot: int
    poly_modulus_degree: int
    coeff_mod_bits: tuple[int, ...]
    plain_modulus: int
    scale_bits: int

    @property
    def slots_per_chunk(self) -> int:
        """Numbers in one ciphertext; the last of them is the check slot."""
        return self.poly_modulus_degree // (2 if self.scheme == "ckks" else 1)

    @property
    def data_slots(self) -> int:
        """Slots of a chunk that carry fields: all but the check slot."""
        return self.slots_per_chunk - 1

    @property
    def chunks(self) -> int:
        """Ciphertexts of one sealed vector."""
        return -(-self.length // (self.data_slots * self.fields_per_slot))

    @property
    def max_chunk_bytes(self) -> int:
        """A longer chunk is refused unread."""
        if self.scheme == "none":
            return 8 * self.slots_per_chunk + 16
        words = 2 * (len(self.coeff_mod_bits) - 1) * self.poly_modulus_degree
        return 8 * words + _CHUNK_FRAMING_BYTES

    @property
    def max_context_bytes(self) -> int:
        """A longer public context is refused unread."""
        words = 2 * len(self.coeff_mod_bits) * self.poly_modulus_degree
        return 8 * words + 2 * _CHUNK_FRAMING_BYTES

    @property
    def upload_bytes(self) -> int:
        """What one contributor sends, to about a thousandth."""
        return self.chunks * _TYPICAL_CHUNK_BYTES[self.scheme]

    @property
    def download_bytes(self) -> int:
        """What one contributor receives each round: the model, in clear, as float32."""
        return 4 * self.length

    @property
    def expansion(self) -> float:
        """`upload_bytes` over the same vector as float32."""
        return self.upload_bytes / (4 * self.length)

    @property
    def security_bits(self) -> int:
        """Level of the encryption, which SEAL enforces; 0 without encryption."""
        return 0 if self.scheme == "none" else 128

    @property
    def field_headroom_bits(self) -> float:
        """log2 of how far the largest possible sum stays below the end of its field."""
        return math.log2(2 ** (self.field_bits - 1) / (self.contributors * self.value_bound))

    @property
    def noise_headroom_bits(self) -> float:
        """log2 of how far BFV's noise stays below decryption failure; infinite without noise."""
        if self.scheme != "bfv":
            return math.inf
        return _noise_headroom_bits(self.contributors, self.plain_modulus)

    def to_json(self) -> str:
        """Canonical JSON: equal parameters have equal text."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> SealingParameters:
        """Read parameters that another party sent.

        Raises:
            EncryptionError: not JSON, a field missing or unknown, or the derived values are not
                those that `derive_parameters` gives.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            stated = cls(**{**fields, "coeff_mod_bits": tuple(fields["coeff_mod_bits"])})
            derived = derive_parameters(
                scheme=stated.scheme,
                contributors=stated.contributors,
                value_bound=stated.value_bound,
                length=stated.length,
            )
        except (TypeError, KeyError, ValueError, RecursionError) as error:
            raise EncryptionError(
                f"the sealing parameters received cannot be read ({type(error).__name__})",
                hint="run the same version of calyx-fl everywhere",
            ) from None
        # The text is compared, not the numbers: 1.0 and true equal 1 in Python.
        if stated.to_json() != derived.to_json():
            raise EncryptionError(
                "the sealing parameters received are not those derived for their contributors, "
                "value bound and length",
                hint="run the same version of calyx-fl everywhere",
            )
        return derived

    @property
    def digest(self) -> str:
        """SHA-256 of `to_json`, hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def value_bound_of_bits(bits: int) -> int:
    """Largest absolute value of a signed integer of `bits` bits, the same on both sides."""
    if not 2 <= bits <= 40:
        raise EncryptionError(f"values of {bits} bits cannot be sealed", hint="use 2 to 40 bits")
    return int(2 ** (bits - 1) - 1)


def derive_parameters(
    *, scheme: Scheme, contributors: int, value_bound: int, length: int
) -> SealingParameters:
    """Derive everything from scheme, number of vectors K, bound B of their entries, and length.

    Args:
        scheme: see `SealingParameters`.
        contributors: K, most vectors added into one sum.
        value_bound: B, the largest absolute entry any one vector may have, its noise included.
        length: entries of each vector.

    **No field overflows.** Entries are signed and a slot holds F of them as balanced digits,
    slot = sum_j v_j 2^(fj). f is the smallest width with K B <= 2^(f-1) - 1. For a sum of at
    most K vectors each digit s_j = sum v_j then satisfies |s_j| <= 2^(f-1) - 1, so digits are
    unique and carry nowhere, and |slot| <= (2^(f-1) - 1)(2^(Ff) - 1)/(2^f - 1) < 2^(Ff-1). The
    plain modulus is the smallest prime t = 1 (mod 2N) above 2^(Ff), so |slot| < t/2 and nothing
    wraps modulo t either. The check slot holds K at most, which is below the same bound.

    **BFV noise** (N = 4096, data prime q of 54 bits, key-switching prime p of 55 bits). SEAL
    encrypts zero modulo qp and divides by p with rounding. With ternary u and s and errors of at
    most 21 (a centred binomial distribution), the divided encryption noise is at most
    21(2N + 1)/p < 2^-36 and negligible; what stays is the rounding d0 + d1 s with coefficients
    of d0 and d1 in [-1/2, 1/2], uniform up to 2^-54 because the residues modulo p are those of
    an RLWE sample. Encoding rounds q m/t by at most another 1/2. In the sum of K ciphertexts
    each noise coefficient is a sum of at most K(N + 1) independent centred terms in [-1/2, 1/2]
    plus at most K/2 + 1, so by Hoeffding it exceeds

        x = sqrt(K (N + 1) ln(2/p0) / 2) + K/2 + 1

    with probability at most p0. p0 = 2^-72 leaves less than 2^-40 for all of 2^32 coefficients
    (over 10^9 slots). Decryption is exact while the noise stays below q/(2t), so F is the
    largest number of fields with 2 t x <= q. `noise_headroom_bits` is log2(q/(2 t x)); the
    noise of honest ciphertexts, measured in the tests, stays below x.

    A ciphertext that is not honest can hold any noise. Whatever it does to the sum shows in the
    check slots, see `calyx.shared.encryption.pack`.

    **CKKS** (N = 8192, moduli 60, 40, 40, scale 2^40). A slot has at most 40 bits in all. The
    error of a sum is that of K fresh encryptions, each about sqrt(N (1 + 2N/3)/12)/2^40 < 2^-28
    a slot, plus double precision's 2^-53 relative error times the growth of two FFTs; the tests
    measure below 2^-8 at the bound. Unpacking refuses any slot further than 1/4 from an integer.
    Only rounded integers are ever released, never the raw approximate decryption (Li and
    Micciancio 2021).

    Raises:
        EncryptionError: a value is out of range, or not even one field fits a slot; the message
            says what to lower.
    """
    if scheme not in get_args(Scheme):
        raise EncryptionError(f"unknown sealing scheme {scheme!r}", hint="use bfv, ckks or none")
    for name, value, top in (
        ("contributors", contributors, MAX_CONTRIBUTORS),
        ("value bound", value_bound, 2**62),
        ("length", length, MAX_LENGTH),
    ):
        if type(value) is not int or not 1 <= value <= top:
            raise EncryptionError(f"{name} {value!r} of a sealed sum must be from 1 to {top}")
    degree, coeff_mod_bits = _RING[scheme]
    field_bits = (contributors * value_bound).bit_length() + 1
    # A plain sum needs no packing: it is there for tests and costs no ciphertext.
    fields = min(_MAX_SLOT_BITS[scheme] // field_bits, 1 if scheme == "none" else 60)
    plain_modulus = 0
    while fields > 0 and scheme == "bfv":
        plain_modulus = _prime_above(2 ** (fields * field_bits), 2 * degree)
        if _noise_headroom_bits(contributors, plain_modulus) >= 0:
            break
        fields -= 1
    if fields == 0:
        raise EncryptionError(
            f"sums of {contributors} values up to {value_bound} need {field_bits} bits, more than "
            f"a {scheme} slot holds",
            hint="lower secure_aggregation.bits or the clients per round",
        )
    return SealingParameters(
        scheme=scheme,
        contributors=contributors,
        value_bound=value_bound,
        length=length,
        field_bits=field_bits,
        fields_per_slot=fields,
        poly_modulus_degree=degree,
        coeff_mod_bits=coeff_mod_bits,
        plain_modulus=plain_modulus,
        scale_bits=_CKKS_SCALE_BITS if scheme == "ckks" else 0,
    )


def largest_value_bound(*, contributors: int, fields_per_slot: int) -> int:
    """Largest B for which BFV still packs that many fields into a slot; 0 if none.

    Whatever fits costs the same upload, so use all of it.
    """
    degree, _ = _RING["bfv"]
    for field_bits in range(_MAX_SLOT_BITS["bfv"] // fields_per_slot, 1, -1):
        prime = _prime_above(2 ** (fields_per_slot * field_bits), 2 * degree)
        if _noise_headroom_bits(contributors, prime) >= 0:
            return int(2 ** (field_bits - 1) - 1) // contributors
    return 0


def _noise_headroom_bits(contributors: int, plain_modulus: int) -> float:
    degree, coeff_mod_bits = _RING["bfv"]
    log_term = math.log(2) * (1 + _FAILURE_BITS + _COEFFICIENT_BITS)
    noise = math.sqrt(contributors * (degree + 1) * log_term / 2) + contributors / 2 + 1
    # SEAL takes the largest suitable prime of 54 bits, which is above 2^54 (1 - 2^-20).
    log_q = sum(coeff_mod_bits[:-1]) - 2.0**-19
    return log_q - 1 - math.log2(plain_modulus) - math.log2(noise)


def _prime_above(bound: int, step: int) -> int:
    """Smallest prime above `bound` that is 1 modulo `step`; batching needs step = 2N."""
    candidate = (bound // step + 1) * step + 1
    while not _is_prime(candidate):
        candidate += step
    return candidate


def _is_prime(n: int) -> bool:
    """Miller-Rabin with the bases that decide every n below 3.3e24 (Sorenson, Webster 2017)."""
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)
    if n < 2 or any(n % b == 0 for b in bases):
        return n in bases
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in bases:
        x = pow(base, odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True
