"""Putting a fault in place for one run, and the small runs that faults are planted in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Patch = tuple[Any, str, Any]

# Few rounds, a narrow clip norm and little noise: faults stand out, and a run takes seconds.
SEALED = (
    "training.rounds=4",
    "federation.clients=4",
    "data.max_records=200",
    "secure_aggregation.min_contributors=2",
    "privacy.epsilon=50",
    "privacy.clip_norm=0.1",
)
SAMPLED = (
    "training.rounds=4",
    "federation.clients=4",
    "data.max_records=400",
    "training.batch_size=16",
    "training.learning_rate=0.1",
    "privacy.noise=local",
    "privacy.sampling=poisson",
    "privacy.epsilon=20",
    "secure_aggregation.scheme=none",
)
# For unit = client the canaries are whole clients.
CLIENTS = (
    "training.rounds=3",
    "federation.clients=4",
    "data.max_records=120",
    "privacy.unit=client",
    "privacy.noise=central",
    "privacy.epsilon=20",
    "secure_aggregation.scheme=none",
)
# Each client protects its whole update by itself.
ALONE = (
    "training.rounds=3",
    "federation.clients=4",
    "data.max_records=120",
    "privacy.unit=client",
    "privacy.noise=local",
    "privacy.epsilon=50",
    "secure_aggregation.scheme=none",
)


@dataclass(frozen=True)
class Mutant:
    """One planted fault.

    Attributes:
        name: what is wrong.
        settings: of the run it is planted in.
        patches: returns (owner, attribute, replacement) for each thing that is replaced.
        forget: whether to ignore cached figures of accountants, and cache none.
    """

    name: str
    settings: tuple[str, ...]
    patches: Callable[[], list[Patch]]
    forget: bool = False


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Put a mutant's functions in place for a block."""
    before: list[Patch] = []
    kept = _kept_figures() if mutant.forget else []
    for figures in kept:
        figures.cache_clear()
    try:
        for owner, attribute, replacement in mutant.patches():
            before.append((owner, attribute, getattr(owner, attribute)))
            setattr(owner, attribute, replacement)
        yield
    finally:
        for owner, attribute, original in reversed(before):
            setattr(owner, attribute, original)
        for figures in kept:
            figures.cache_clear()


def _kept_figures() -> list[Any]:
    """The caches of plans and accountants."""
    import calyx.shared.privacy.accounting as accounting
    import calyx.shared.privacy.plan as plan

    found = [value for module in (plan, accounting) for value in vars(module).values()]
    return [value for value in found if hasattr(value, "cache_clear")]
