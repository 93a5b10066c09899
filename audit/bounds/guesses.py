"""Guesses about canaries: for a few counts fixed beforehand, from the surest scores only.

Looking at many counts and keeping the best is a common fault: it finds leakage where there is
none in almost half of all runs. Here the counts are fixed before the run, and each is held to the
level divided by their number (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Coins = NDArray[np.bool_]
Shares = Sequence[float]

LEVEL = 0.05
# Shares of the canaries that are guessed, half as included and half as left out.
SHARES: Shares = (0.1, 0.3)


@dataclass(frozen=True)
class Guesses:
    """How one count of guesses came out.

    Attributes:
        canaries: m, all canaries.
        made: r, guesses made; no guess is made about the others.
        right: v, guesses that were right.
    """

    canaries: int
    made: int
    right: int


def guess_counts(canaries: int, shares: Shares = SHARES) -> tuple[int, ...]:
    """The counts of guesses for this number of canaries: even, distinct, at least 2."""
    return tuple(sorted({max(2, 2 * round(share * canaries / 2)) for share in shares}))


def guesses(scores: Scores, coins: Coins, shares: Shares = SHARES) -> Iterator[Guesses]:
    """Guess "included" for the highest and "left out" for the lowest scores, for every count.

    Args:
        scores: (canaries,), higher for included ones.
        coins: (canaries,), which were included.
        shares: of the canaries that are guessed.

    Raises:
        ValueError: shapes differ, or a score is not finite.
    """
    check(scores, coins)
    order = np.argsort(scores, kind="stable")
    ordered = coins[order]
    for made in guess_counts(len(scores), shares):
        half = made // 2
        right = int(ordered[-half:].sum()) + int((~ordered[:half]).sum())
        yield Guesses(len(scores), made, right)


def check(scores: Scores, coins: Coins) -> None:
    """Refuse input from which no bound may be computed."""
    if scores.shape != coins.shape or scores.ndim != 1 or len(scores) < 2:
        raise ValueError(f"scores {scores.shape} and coins {coins.shape} must be equally many")
    if not np.isfinite(scores).all():
        raise ValueError("a canary's score is not finite")


def ceiling(made: int, level: float = LEVEL) -> float:
    """Largest epsilon that r guesses can show if all are right: logit(level^(1/r)).

    >>> round(ceiling(100), 2), round(ceiling(1000), 2)
    (3.49, 5.81)
    """
    share = level ** (1 / made)
    return math.log(share / (1 - share))
