"""Key pairs for tests, and what the key authority does with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tenseal as ts

from calyx.shared.encryption import SealingParameters
from calyx.shared.encryption.plain import read_plain_sum
from calyx.shared.encryption.wire import export_public_context, read_chunk


@dataclass(frozen=True)
class Keys:
    """A key pair of the given parameters; for the plain scheme, nothing."""

    parameters: SealingParameters
    context: Any = field(repr=False)
    public: bytes = field(repr=False)

    def decrypt(self, chunks: Sequence[bytes]) -> np.ndarray:
        if self.parameters.scheme == "none":
            return read_plain_sum(chunks, self.parameters)
        vectors = [read_chunk(self.context, chunk, self.parameters) for chunk in chunks]
        return np.array([vector.decrypt() for vector in vectors])

    def noise_budget(self, chunk: bytes) -> int:
        (ciphertext,) = read_chunk(self.context, chunk, self.parameters).ciphertext()
        return self.context.decryptor().data.invariant_noise_budget(ciphertext)


def _make(parameters: SealingParameters) -> Keys:
    p = parameters
    if p.scheme == "none":
        return Keys(p, None, b"")
    kind = ts.SCHEME_TYPE.BFV if p.scheme == "bfv" else ts.SCHEME_TYPE.CKKS
    context = ts.context(
        kind,
        p.poly_modulus_degree,
        plain_modulus=p.plain_modulus or None,
        coeff_mod_bit_sizes=list(p.coeff_mod_bits),
        n_threads=1,
    )
    if p.scheme == "ckks":
        context.global_scale = 2.0**p.scale_bits
    return Keys(p, context, export_public_context(context))


@pytest.fixture(scope="session")
def keys() -> Iterator[Callable[[SealingParameters], Keys]]:
    """Key pair of some parameters; the same one for equal encryption parameters."""
    made: dict[tuple[str, int], Keys] = {}

    def of(parameters: SealingParameters) -> Keys:
        # Length, bound and contributors do not enter a key.
        ring = (parameters.scheme, parameters.plain_modulus)
        if ring not in made:
            made[ring] = _make(parameters)
        return Keys(parameters, made[ring].context, made[ring].public)

    yield of
    made.clear()


@pytest.fixture
def count_threads() -> Callable[[], int]:
    """Threads of this process, those of C++ included."""
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        pytest.skip("needs /proc")
    return lambda: len(list(tasks.iterdir()))
