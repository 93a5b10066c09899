"""Holding out test records where a source has no test set of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from calyx.shared.data.dataset import Dataset, Split
from calyx.shared.errors import DataError

# Keeps this stream of random numbers apart from others drawn from the same seed.
_STREAM = 0x401D
_GROUP_STREAM = 0x401E


def hold_out(dataset: Dataset, fraction: float, seed: int) -> Split:
    """Set a share of every class aside for testing; of all records where labels are no classes.

    Each class gives the same share to within one record, and keeps at least one record for
    training. Both parts keep the order of `dataset`.

    Args:
        dataset: all records.
        fraction: share to hold out, in (0, 1).
        seed: the same seed gives the same split.

    Raises:
        DataError: too few records for a test set.
    """
    rng = np.random.default_rng((_STREAM, seed))
    strata = dataset.strata
    counts = np.bincount(strata)
    wanted = counts * fraction
    held = np.minimum(np.floor(wanted).astype(np.int64), np.maximum(counts - 1, 0))
    spare = np.maximum(counts - 1, 0) - held
    # The largest remainders first, so that the total is right too.
    by_remainder = np.argsort(held - wanted, kind="stable")
    missing = round(len(dataset) * fraction) - int(held.sum())
    for label in [c for c in by_remainder if spare[c] > 0][: max(missing, 0)]:
        held[label] += 1
    if not held.sum():
        raise DataError(
            f"{len(dataset)} records are too few to hold out {fraction:g} of them for testing",
            hint="raise data.test_fraction or give a test set",
        )
    is_test = np.zeros(len(dataset), dtype=np.bool_)
    for label, number in enumerate(held):
        members = np.flatnonzero(strata == label)
        is_test[rng.permutation(members)[:number]] = True
    return Split(dataset.subset(np.flatnonzero(~is_test)), dataset.subset(np.flatnonzero(is_test)))


def hold_out_together(dataset: Dataset, groups: NDArray[Any], fraction: float, seed: int) -> Split:
    """Set whole groups aside for testing, such as all windows of a recording or of a subject.

    Groups are drawn one by one until the test set is as near to its share as it gets. At least one
    group is held out and at least one is kept. Both parts keep the order of `dataset`.

    Args:
        dataset: all records.
        groups: int64 or str (n,), which group each record is of.
        fraction: share of the records to hold out, in (0, 1).
        seed: the same seed gives the same split.

    Raises:
        DataError: there is one group only.
    """
    names, member_of = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise DataError(
            f"all {len(dataset)} records are of {names[0]}, which would be on both sides of the "
            "test split",
            hint="give records of others too, or a test set",
        )
    sizes = np.bincount(member_of)
    order = np.random.default_rng((_GROUP_STREAM, seed)).permutation(len(names))
    held = np.cumsum(sizes[order])[:-1]
    nearest = int(np.abs(held - fraction * len(dataset)).argmin()) + 1
    is_test = np.isin(member_of, order[:nearest])
    train, test = (dataset.subset(np.flatnonzero(rows)) for rows in (~is_test, is_test))
    return Split(train, test)
