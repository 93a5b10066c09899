"""What a source read: records as they are, labels as they come, and what was done to both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calyx.shared.config.schema import TaskConfig
from calyx.shared.data.dataset import Dataset
from calyx.shared.errors import DataError
from calyx.shared.record_spec import Tokens
from calyx.shared.target import Classes, MultiLabel, NextTokens, Reals, Target


@dataclass(frozen=True, eq=False)
class SourceRecords:
    """All records of a source, before they are divided among anyone.

    The arrays must not be written to, and are left out of ``repr``: records have no place in logs.

    Attributes:
        features: float32 (n, ...), all finite, or tokens int64 (n, length), 0 for padding.
        labels: int64 (n,) classes; float32 (n,) real values; float32 (n, k) several labels, each 0
            or 1; None for text that predicts itself.
        class_names: of the classes, or of the k labels; empty for real values and for None.
        natural_ids: whose record it is, int64 or str (n,), or None if the source does not say.
        files: str (n,), the file each record is from. Windows of one recording share it.
        is_test: bool (n,), the source's own test set, or None if it has none.
        done: what was done to the values, a sentence each.
        warnings: what to look at before training.
        tokens: size of the vocabulary that features are tokens of; 0: they are float32.
        bounds: public bounds of real labels; None for others.

    Raises:
        DataError: arrays that do not belong together, or a value that is not finite.
    """

    features: NDArray[np.float32] | NDArray[np.int64] = field(repr=False)
    labels: NDArray[np.int64] | NDArray[np.float32] | None = field(repr=False)
    class_names: tuple[str, ...] = ()
    natural_ids: NDArray[Any] | None = field(default=None, repr=False)
    files: NDArray[Any] | None = field(default=None, repr=False)
    is_test: NDArray[np.bool_] | None = field(default=None, repr=False)
    done: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    tokens: int = 0
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        columns = (self.labels, self.natural_ids, self.files, self.is_test)
        if any(column is not None and len(column) != len(self) for column in columns):
            raise DataError("a source gave columns of different lengths", hint="read it again")
        if not len(self):
            raise DataError("there are no records", hint="give at least one")
        if not (finite := np.isfinite(self.features)).all():
            record = int(np.argwhere(~finite)[0, 0])
            raise DataError(
                f"record {record}{self._from(record)} holds a NaN or infinite value",
                hint="clean the data or leave it out",
            )

    def __len__(self) -> int:
        return len(self.features)

    def _from(self, record: int) -> str:
        return "" if self.files is None else f" ({self.files[record]})"

    def learned(self, task: TaskConfig) -> Reading:
        """The records as `task` takes them.

        Raises:
            DataError: the labels are of another kind, or all records are for testing.
        """
        features, labels, target = self._labelled(task)
        inputs = {"x": Tokens(features.shape[1:], self.tokens)} if self.tokens else None
        test = np.zeros(len(self), np.bool_) if self.is_test is None else self.is_test
        if test.all():
            raise DataError("all records are for testing", hint="leave some to train on")

        def part(rows: NDArray[np.bool_]) -> Dataset:
            ids = None if self.natural_ids is None else self.natural_ids[rows]
            return Dataset(features[rows], labels[rows], target, ids, inputs)

        return Reading(
            train=part(~test),
            test=part(test) if test.any() else None,
            files=None if self.files is None else self.files[~test],
            class_names=self.class_names,
            done=self.done,
            warnings=self.warnings,
        )

    def _labelled(self, task: TaskConfig) -> tuple[NDArray[Any], NDArray[Any], Target]:
        features, labels = self.features, self.labels
        if labels is None and self.tokens and task.kind == "next_token":
            # What follows each token but the last is the next one.
            steps = features.shape[1] - 1
            following = np.ascontiguousarray(features[:, 1:])
            return features[:, :-1], following, NextTokens((steps,), self.tokens)
        if labels is None:
            raise DataError(
                "the records have no labels: they are text that predicts itself",
                hint="set task.kind=next_token",
            )
        if self.bounds is not None:
            return features, labels, Reals(*self.bounds)
        if labels.ndim == 2:
            return features, labels, MultiLabel(labels.shape[1], self.class_names)
        if labels.dtype != np.int64:
            raise DataError(
                "the records have a real value each, and no class",
                hint="set task.kind=regression",
            )
        return features, labels, Classes(len(self.class_names))


@dataclass(frozen=True, eq=False)
class Reading:
    """Records of a source with what is learned from them.

    Attributes:
        train: for training; what is to be held out for testing is among them.
        test: the source's own test set, or None.
        files: str, for each training record the file it is from; None where that is no matter.
        class_names: in the order of the classes; empty where classes are only numbers.
        done: what was done to the values, a sentence each.
        warnings: what to look at before training.
    """

    train: Dataset
    test: Dataset | None = None
    files: NDArray[Any] | None = field(default=None, repr=False)
    class_names: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def shortened(names: list[str], most: int = 3) -> str:
    """The first few of many names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
