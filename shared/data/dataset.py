"""Labelled records in memory, checked once when they are made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calyx.shared.errors import DataError
from calyx.shared.record_spec import RecordSpec

# Far more than anyone has; a stray number among the labels would cost all memory.
_MOST_CLASSES = 1 << 20


@dataclass(frozen=True, eq=False)
class Dataset:
    """Records with one class label each.

    The arrays are shared, not copied, and must not be written to. They are left out of ``repr``:
    records have no place in logs.

    Attributes:
        features: float32 (n, *input_shape), all finite, n at least 1.
        labels: int64 (n,), each in [0, classes).
        classes: number of classes, at least 2; a class may have no records.
        natural_ids: whose record it is, int64 or str (n,), or None if the source does not say.

    Raises:
        DataError: an array of another dtype or shape, no records, a value that is not finite, or
            a label out of range.
    """

    features: NDArray[np.float32] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    classes: int
    natural_ids: NDArray[Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.features.dtype != np.float32 or self.features.ndim < 2:
            raise DataError(
                f"features must be float32 (records, ...), not {_described(self.features)}",
                hint="convert and reshape them",
            )
        if self.labels.dtype != np.int64 or self.labels.ndim != 1:
            raise DataError(
                f"labels must be int64 (records,), not {_described(self.labels)}",
                hint="convert and reshape them",
            )
        if len(self.features) != len(self.labels):
            raise DataError(
                f"there are {len(self.features)} records but {len(self.labels)} labels",
                hint="give each record exactly one label",
            )
        if 0 in self.features.shape:
            raise DataError(
                f"features have shape {self.features.shape}, so there are no values",
                hint="give at least one record",
            )
        if not (finite := np.isfinite(self.features)).all():
            record = int(np.argwhere(~finite)[0, 0])
            raise DataError(
                f"record {record} holds a NaN or infinite value",
                hint="clean the data or leave it out",
            )
        self._check_labels()
        self._check_natural_ids()

    def _check_labels(self) -> None:
        if self.classes > _MOST_CLASSES:
            raise DataError(
                f"labels go up to {self.classes - 1}; at most {_MOST_CLASSES} classes are "
                "supported",
                hint="number the classes 0, 1, 2 and so on",
            )
        if self.classes < 2:
            raise DataError(
                f"there is {self.classes} class",
                hint="give records of at least two classes",
            )
        lowest, highest = int(self.labels.min()), int(self.labels.max())
        if lowest < 0 or highest >= self.classes:
            raise DataError(
                f"label {lowest if lowest < 0 else highest} is out of range: with {self.classes} "
                f"classes labels are 0 to {self.classes - 1}",
                hint="number the classes 0, 1, 2 and so on",
            )

    def _check_natural_ids(self) -> None:
        ids = self.natural_ids
        if ids is None:
            return
        if ids.shape != self.labels.shape or not (ids.dtype == np.int64 or ids.dtype.kind == "U"):
            raise DataError(
                f"client ids are {_described(ids)}, but must be int64 or text, one for each of the "
                f"{len(self.labels)} records",
                hint="convert them, or give one for each record",
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one record."""
        return self.features.shape[1:]

    @property
    def spec(self) -> RecordSpec:
        """What is public about one record's input."""
        return RecordSpec.floats(self.input_shape)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, as hex, over dtype, shape and bytes of features and labels, in their order.

        It is what a privacy ledger is bound to, so it covers exactly what is trained on: not the
        client ids, which only say who holds a record. Byte order and memory layout do not matter.
        """
        digest = hashlib.sha256()
        for array, dtype in ((self.features, "<f4"), (self.labels, "<i8")):
            digest.update(f"{dtype} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array, dtype=dtype).data)
        return digest.hexdigest()

    def subset(self, indices: NDArray[np.int64]) -> Dataset:
        """The records at `indices`, in that order, as a copy.

        Args:
            indices: int64 (k,), k at least 1, different from each other, each in [0, n).

        Raises:
            DataError: an index out of range, or given twice. A record that a client held twice
                would count twice in every sum, against all privacy accounting.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if not indices.size:
            raise DataError("a subset of no records was requested", hint="give at least one index")
        if indices.min() < 0 or indices.max() >= len(self):
            raise DataError(
                f"record {indices.max() if indices.min() >= 0 else indices.min()} was requested "
                f"but there are {len(self)}: the data set has changed since it was divided"
            )
        if len(np.unique(indices)) != len(indices):
            raise DataError(
                "a record was requested twice",
                hint="make the indices differ from each other",
            )
        ids = None if self.natural_ids is None else self.natural_ids[indices]
        return Dataset(self.features[indices], self.labels[indices], self.classes, ids)


@dataclass(frozen=True)
class Split:
    """Records to train on and records to test on.

    Attributes:
        train: divided among the clients.
        test: kept by the server.
        done: what was done to the stored values, a sentence each.
        warnings: what to look at before training.

    Raises:
        DataError: the two differ in the shape of a record or the number of classes.
    """

    train: Dataset
    test: Dataset
    done: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        train, test = self.train, self.test
        if train.input_shape != test.input_shape:
            raise DataError(
                f"training records have shape {train.input_shape} but test records "
                f"{test.input_shape}",
                hint="take both from the same data set",
            )
        if train.classes != test.classes:
            raise DataError(
                f"training data have {train.classes} classes but test data {test.classes}",
                hint="take both from the same data set",
            )


def _described(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"
