"""PyTorch's own randomness (initial weights, dropout) from a seed, for a stretch of code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_CPU = torch.device("cpu")


@contextmanager
def torch_seeded(seed: int, device: torch.device = _CPU) -> Iterator[None]:
    """Seed PyTorch's generators of the CPU and of `device`; restore them afterwards.

    `torch.manual_seed` would also queue a call for each kind of accelerator that is not in
    use, at some tenths of a millisecond and a stack trace each, and keep them all.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed % 2**63)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed % 2**63)
        yield
