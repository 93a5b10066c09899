"""Where the randomness of a mechanism comes from: `SeededNoise` or `SystemNoise`.

Both draw from AES-128 in counter mode (NIST SP 800-38A) through NumPy's `Generator`:

* `SeededNoise` is for simulations. Its 256 bits come from `seeded_key`, so a run can be
  repeated bit for bit, and streams of different keys are independent of each other. Anyone
  who knows the seed can subtract the noise, so it protects no one outside a simulation.
* `SystemNoise` is for real devices. Its 256 bits come from the operating system, are never
  stored elsewhere, and the noise cannot be repeated.

Floating-point Gaussians are not the real-valued ones of the analysis: their low-order bits can
give away what they were added to (Mironov 2012). `SystemNoise` therefore returns the scaled sum of
four independent draws (Holohan and Braghin 2021, section 5.1, with n = 2), and both sources return
double precision: add it to the value in double precision and round once, afterwards. Rounding is
then post-processing of a sum, whereas rounded noise would only reach some of the outputs.
"""

from __future__ import annotations

import hashlib
import math
import os
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from randomgen import AESCounter

from calyx.shared.errors import PrivacyError

KEY_BYTES = 32


class NoiseSource(Protocol):
    """Randomness of one client for one purpose; every call advances the stream."""

    @property
    def kind(self) -> Literal["seeded", "system"]:
        """``seeded`` (repeatable, simulations only) or ``system`` (operating system entropy)."""

    def gaussian(self, shape: tuple[int, ...], std: float) -> torch.Tensor:
        """Independent N(0, std^2) values, float64 on the CPU, of this shape.

        Raises:
            PrivacyError: `std` is negative or not finite.
        """

    def coins(self, n: int, probability: float) -> NDArray[np.bool_]:
        """`n` independent coins, bool (n,), each true with this probability.

        Raises:
            PrivacyError: `probability` is outside [0, 1].
        """

    @property
    def generator(self) -> np.random.Generator:
        """The stream itself, for integer noise and dithered rounding."""


class _CounterNoise:
    """The stream that both sources share: AES-128-CTR under 256 secret bits."""

    def __init__(self, key: bytes, draws: int) -> None:
        if len(key) != KEY_BYTES:
            raise PrivacyError(f"a noise key has {KEY_BYTES} bytes; this one has {len(key)}")
        # AES-128 takes half of the secret as its key. The other half is where the counter
        # starts, so that no block is shared by chance when many keys are in use.
        self._generator = np.random.Generator(
            AESCounter(
                key=int.from_bytes(key[:16], "little"), counter=int.from_bytes(key[16:], "little")
            )
        )
        self._draws = draws

    def gaussian(self, shape: tuple[int, ...], std: float) -> torch.Tensor:
        if not (math.isfinite(std) and std >= 0):
            raise PrivacyError(f"the noise standard deviation is {std}; it must be 0 or more")
        count = math.prod(shape)
        total = self._generator.standard_normal(count)
        for _ in range(self._draws - 1):
            total += self._generator.standard_normal(count)
        total *= std / math.sqrt(self._draws)
        return torch.from_numpy(total).reshape(shape)

    def coins(self, n: int, probability: float) -> NDArray[np.bool_]:
        if not 0 <= probability <= 1:
            raise PrivacyError(f"a sampling rate of {probability} is not a probability")
        return self._generator.random(n) < probability

    @property
    def generator(self) -> np.random.Generator:
        return self._generator

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __reduce__(self) -> Any:
        # A copy would repeat the stream: the same noise twice can be subtracted.
        raise PrivacyError(
            f"{type(self).__name__} must not be copied or stored",
            hint="make a new one",
        )


class SeededNoise(_CounterNoise):
    """Repeatable noise for simulations.

    Args:
        key: 32 bytes, usually from `seeded_key`; never use one key for two streams.

    Raises:
        PrivacyError: the key has another length.
    """

    kind: Literal["seeded"] = "seeded"

    def __init__(self, key: bytes) -> None:
        super().__init__(key, draws=1)


class SystemNoise(_CounterNoise):
    """Noise for real devices, keyed with 256 bits of the operating system's entropy."""

    kind: Literal["system"] = "system"

    def __init__(self) -> None:
        super().__init__(os.urandom(KEY_BYTES), draws=4)


def seeded_key(*parts: bytes | str | int) -> bytes:
    """Derive the 32-byte key of one stream from what names it, such as seed, client and round.

    SHA-256 over each part with its type and length in front, so that no two different lists
    of parts run together: ``("ab", "c")`` and ``("a", "bc")`` or ``1`` and ``"1"`` differ.
    """
    digest = hashlib.sha256(b"calyx noise key v1")
    for part in parts:
        if isinstance(part, bytes):
            tag, body = b"b", part
        elif isinstance(part, str):
            tag, body = b"s", part.encode()
        elif isinstance(part, int) and not isinstance(part, bool):
            tag, body = b"i", b"%d" % part
        else:
            raise PrivacyError(f"a noise key cannot be made from a {type(part).__name__}")
        digest.update(tag + len(body).to_bytes(8, "big") + body)
    return digest.digest()
