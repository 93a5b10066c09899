"""Labelled records in memory, checked once when they are made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calyx.shared.errors import DataError
from calyx.shared.record_spec import Floats, Input, Length, Mask, RecordSpec, Tokens
from calyx.shared.target import Classes, Target

Features = NDArray[Any] | Mapping[str, NDArray[Any]]
"""One array (n, ...), or one for each named input of a record."""

_DTYPES: Mapping[type[Input], str] = {
    Floats: "float32",
    Tokens: "int64",
    Length: "int64",
    Mask: "bool",
}
# How a value is hashed and fingerprinted, whatever machine holds it.
_STORED = {"float32": "<f4", "int64": "<i8", "bool": "|b1"}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Records with a label each.

    The arrays are shared, not copied, and must not be written to. They are left out of ``repr``:
    records have no place in logs.

    Attributes:
        features: float32 (n, *input_shape), all finite, n at least 1; or an array for each name in
            `inputs`.
        labels: (n, *target.shape), of the target's dtype and values.
        target: what the labels are; a number is that many classes.
        natural_ids: whose record it is, int64 or str (n,), or None if the source does not say.
        inputs: what is public about the features; None: float32 of the shape they have.

    Raises:
        DataError: an array of another dtype or shape, no records, a value that is not finite or not
            among those that are public, or a label that cannot be one.
    """

    features: Features = field(repr=False)
    labels: NDArray[Any] = field(repr=False)
    target: Target | int
    natural_ids: NDArray[Any] | None = field(default=None, repr=False)
    inputs: Mapping[str, Input] | None = None
    spec: RecordSpec = field(init=False)

    def __post_init__(self) -> None:
        # Before the classes: where there are no records, their number is not what is wrong.
        plain = self._plain_shape() if self.inputs is None else ()
        if isinstance(self.target, int | np.integer):
            object.__setattr__(self, "target", Classes(int(self.target)))
        assert isinstance(self.target, Target)
        if self.inputs is None:
            object.__setattr__(self, "spec", RecordSpec.floats(plain, self.target))
        else:
            object.__setattr__(self, "spec", RecordSpec(tuple(self.inputs.items()), self.target))
            self._check_names()
        for name, given in self.spec.inputs:
            self._check_input(name, given)
        self.target.check(self.labels)
        self._check_natural_ids()

    def _plain_shape(self) -> tuple[int, ...]:
        features = self.features
        if isinstance(features, Mapping):
            raise DataError(
                "features of several inputs need a description of each",
                hint="give Dataset its inputs, as {'x': Floats((28, 28))}",
            )
        if features.dtype != np.float32 or features.ndim < 2:
            raise DataError(
                f"features must be float32 (records, ...), not {_described(features)}",
                hint="convert and reshape them",
            )
        if 0 in features.shape:
            raise DataError(
                f"features have shape {features.shape}, so there are no values",
                hint="give at least one record",
            )
        return features.shape[1:]

    def _check_names(self) -> None:
        names = {name for name, _ in self.spec.inputs}
        given = set(self.features) if isinstance(self.features, Mapping) else names
        if names != given or (self.spec.is_single == isinstance(self.features, Mapping)):
            raise DataError(
                f"features are given for {', '.join(sorted(given))}, but the inputs are "
                f"{', '.join(sorted(names))}",
                hint="give one array for a single input, and a mapping of arrays for several",
            )

    def _check_input(self, name: str, given: Input) -> None:
        array, wanted = self.columns[name], (len(self.labels), *self.spec.shape(name))
        what = "features" if self.spec.is_single else f"input {name}"
        if len(array) != len(self.labels):
            raise DataError(
                f"there are {len(array)} records but {len(self.labels)} labels",
                hint="give each record exactly one label",
            )
        if array.dtype != _DTYPES[type(given)] or array.shape != wanted or not len(array):
            raise DataError(
                f"{what} must be {_DTYPES[type(given)]} {wanted}, not {_described(array)}",
                hint="convert and reshape them",
            )
        if isinstance(given, Floats) and not (finite := np.isfinite(array)).all():
            record = int(np.argwhere(~finite)[0, 0])
            raise DataError(
                f"record {record} holds a NaN or infinite value",
                hint="clean the data or leave it out",
            )
        low, high = 0, None
        if isinstance(given, Tokens):
            high = given.values - 1
        elif isinstance(given, Length):
            low, high = 1, self.spec.shape(given.of)[0]
        if high is not None and (array.min() < low or array.max() > high):
            record = int(np.argwhere((array < low) | (array > high))[0, 0])
            raise DataError(
                f"{what}: record {record} holds a value that is not {low} to {high}",
                hint="read it with the vocabulary and the length that the run has",
            )

    def _check_natural_ids(self) -> None:
        ids = self.natural_ids
        if ids is None:
            return
        if ids.shape != self.labels.shape[:1] or not (
            ids.dtype == np.int64 or ids.dtype.kind == "U"
        ):
            raise DataError(
                f"client ids are {_described(ids)}, but must be int64 or text, one for each of the "
                f"{len(self.labels)} records",
                hint="convert them, or give one for each record",
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def columns(self) -> Mapping[str, NDArray[Any]]:
        """The array of each input, by its name, in the order of `spec`."""
        if isinstance(self.features, Mapping):
            return {name: self.features[name] for name, _ in self.spec.inputs}
        return {self.spec.inputs[0][0]: self.features}

    @property
    def floats(self) -> NDArray[np.float32]:
        """The features of records of one float32 input, (n, *input_shape).

        Raises:
            DataError: a record is something else.
        """
        if self.spec.float_shape is None or isinstance(self.features, Mapping):
            raise DataError(f"records of {self.spec} are not one array of float32 values")
        return self.features

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one record of float32 values.

        Raises:
            DataError: a record is something else.
        """
        if self.spec.float_shape is None:
            raise DataError(f"records of {self.spec} have no single shape")
        return self.spec.float_shape

    @property
    def classes(self) -> int:
        """Number of classes.

        Raises:
            DataError: the labels are no classes.
        """
        if not isinstance(self.spec.target, Classes):
            raise DataError(f"the labels are no classes but {self.spec.target}")
        return self.spec.target.number

    @property
    def strata(self) -> NDArray[np.int64]:
        """What a test set should have equal shares of, int64 (n,): the class; 0 for all others."""
        if isinstance(self.spec.target, Classes):
            return self.labels
        return np.zeros(len(self), dtype=np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, as hex, over dtype, shape and bytes of features and labels, in their order.

        It is what a privacy ledger is bound to, so it covers exactly what is trained on: all inputs
        of a record and its label, but not the client ids, which only say who holds a record. Byte
        order and memory layout do not matter. Inputs of a record that has several are named.
        """
        digest = hashlib.sha256()
        named = "" if self.spec.is_single else "{} "
        columns = [(named.format(name), array) for name, array in self.columns.items()]
        for name, array in (*columns, ("", self.labels)):
            dtype = _STORED[array.dtype.name]
            digest.update(f"{name}{dtype} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array, dtype=dtype).data)
        return digest.hexdigest()

    def record_bytes(self, first: int, last: int) -> NDArray[np.uint8]:
        """The values of records `first` to `last`, exclusive, with their labels: (records, bytes).

        Equal values give equal bytes, whatever shape they are stored in.
        """
        columns = [*self.columns.values(), self.labels]
        return np.hstack([_row_bytes(array[first:last]) for array in columns])

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
        return self._at(indices)

    def _at(self, indices: NDArray[np.int64]) -> Dataset:
        ids = None if self.natural_ids is None else self.natural_ids[indices]
        return replace(
            self,
            features=rows(self.features, indices),
            labels=self.labels[indices],
            natural_ids=ids,
        )


def rows(features: Features, indices: NDArray[np.int64]) -> Features:
    """The records at `indices`, in that order, as a copy."""
    if isinstance(features, Mapping):
        return {name: array[indices] for name, array in features.items()}
    return features[indices]


def _row_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    values = array.reshape(len(array), -1)
    if values.dtype == np.float32:
        # Adding zero gives -0.0 and 0.0, which train alike, the same bytes.
        values = values + np.float32(0)
    stored = np.ascontiguousarray(values, dtype=_STORED[array.dtype.name])
    return stored.view(np.uint8).reshape(len(array), -1)


@dataclass(frozen=True)
class Split:
    """Records to train on and records to test on.

    Attributes:
        train: divided among the clients.
        test: kept by the server.
        done: what was done to the stored values, a sentence each.
        warnings: what to look at before training.

    Raises:
        DataError: the two differ in what their records or labels are.
    """

    train: Dataset
    test: Dataset
    done: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.train.spec != self.test.spec:
            raise DataError(
                f"training records are {self.train.spec} with {self.train.spec.target} but test "
                f"records {self.test.spec} with {self.test.spec.target}",
                hint="take both from the same data set",
            )


def _described(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"
