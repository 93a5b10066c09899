"""What is public about one record's label: what it may be, and how many numbers predict it.

    Classes(10)                      one of ten classes
    MultiLabel(14)                   any of fourteen labels, each 0 or 1
    Reals(low=25.0, high=346.0)      a real value, learned as -1 to 1
    NextTokens((80,), values=65)     what follows each token of a text
    OwnTarget((3,), "float32")       what a task of your own makes of it

Each is known without looking at a record: fixed by the source, stated in the configuration, or
written in the task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from calyx.shared.errors import DataError

# Far more than anyone has; a stray number among the labels would cost all memory.
_MOST_CLASSES = 1 << 20


def _beyond(labels: NDArray[Any], number: int) -> int | None:
    """The smallest or largest label if it is not in [0, number); None if all are."""
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0:
        return lowest
    return highest if highest >= number else None


class Target(ABC):
    """What the labels of a data set are.

    Attributes:
        shape: of one record's label; () for a single number.
        dtype: ``int64`` or ``float32``.
        outputs: how many numbers a model predicts for it; for each step, where a label has steps.
    """

    shape: tuple[int, ...]
    dtype: Literal["int64", "float32"]

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Numbers that a model predicts: for a record, or for each step of one."""

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of what a model returns for one record."""
        return (self.outputs,)

    @abstractmethod
    def check_values(self, labels: NDArray[Any]) -> None:
        """Refuse a label that cannot be one; dtype and shape are right already."""

    def check(self, labels: NDArray[Any]) -> None:
        """See that these are labels of this kind.

        Args:
            labels: (n, *shape).

        Raises:
            DataError: another dtype or shape, or a value that cannot be a label.
        """
        if labels.dtype != self.dtype or labels.shape[1:] != self.shape or not labels.ndim:
            wanted = ", ".join(["records", *map(str, self.shape)])
            raise DataError(
                f"labels must be {self.dtype} ({wanted}), not {labels.dtype} {labels.shape}",
                hint="convert and reshape them",
            )
        self.check_values(labels)


@dataclass(frozen=True)
class Classes(Target):
    """One of `number` classes: int64 (), in [0, number).

    Attributes:
        number: at least 2; a class may have no records.
        names: of the classes in their order; empty where they are only numbers.
    """

    number: int
    names: tuple[str, ...] = ()
    shape = ()
    dtype = "int64"

    def __post_init__(self) -> None:
        if self.number > _MOST_CLASSES:
            raise DataError(
                f"labels go up to {self.number - 1}; at most {_MOST_CLASSES} classes are supported",
                hint="number the classes 0, 1, 2 and so on",
            )
        if self.number < 2:
            raise DataError(
                f"there is {self.number} class", hint="give records of at least two classes"
            )

    @property
    def outputs(self) -> int:
        """One logit for each class."""
        return self.number

    def check_values(self, labels: NDArray[Any]) -> None:
        """Each in [0, number)."""
        if (wrong := _beyond(labels, self.number)) is not None:
            raise DataError(
                f"label {wrong} is out of range: with {self.number} classes labels are 0 to "
                f"{self.number - 1}",
                hint="number the classes 0, 1, 2 and so on",
            )

    def __str__(self) -> str:
        return f"{self.number} classes"


@dataclass(frozen=True)
class MultiLabel(Target):
    """Any of `number` labels at once: float32 (number,), each 0 or 1.

    Attributes:
        number: at least 1.
        names: of the labels in their order; empty where they are only numbers.
    """

    number: int
    names: tuple[str, ...] = ()
    dtype = "float32"

    def __post_init__(self) -> None:
        if not 1 <= self.number <= _MOST_CLASSES:
            raise DataError(f"there are {self.number} labels", hint="give at least one")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """(number,)"""
        return (self.number,)

    @property
    def outputs(self) -> int:
        """One logit for each label."""
        return self.number

    def check_values(self, labels: NDArray[Any]) -> None:
        """Each 0 or 1."""
        wrong = np.argwhere((labels != 0) & (labels != 1))
        if len(wrong):
            record, label = map(int, wrong[0])
            raise DataError(
                f"label {label} of record {record} is {labels[record, label]:g}",
                hint="of several labels each must be 0 or 1",
            )

    def __str__(self) -> str:
        return f"{self.number} labels, any of them"


@dataclass(frozen=True)
class Reals(Target):
    """A real value: float32 (), learned as -1 to 1 between two public bounds.

    The bounds decide how large an error is beside the clip norm. They are public numbers; those of
    the records would tell something about them.

    Attributes:
        low, high: what is learned as -1 and as 1; values beyond them are allowed.
    """

    low: float = -1.0
    high: float = 1.0
    shape = ()
    dtype = "float32"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise DataError(
                f"a real value cannot lie between {self.low:g} and {self.high:g}",
                hint="give the lower bound first",
            )

    @property
    def outputs(self) -> int:
        """The value, learned."""
        return 1

    @property
    def centre(self) -> float:
        """What is learned as 0."""
        return (self.low + self.high) / 2

    @property
    def half_width(self) -> float:
        """What is learned as 1, above the centre."""
        return (self.high - self.low) / 2

    def check_values(self, labels: NDArray[Any]) -> None:
        """Each finite."""
        if not (finite := np.isfinite(labels)).all():
            record = int(np.argwhere(~finite)[0, 0])
            raise DataError(
                f"the label of record {record} is NaN or infinite",
                hint="clean the data or leave it out",
            )

    def __str__(self) -> str:
        return f"a real value, {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class NextTokens(Target):
    """The token that follows each step of a text: int64 (steps,), 0 where there is none.

    Attributes:
        shape: (steps,).
        values: tokens are in [0, values); 0 is padding and is never predicted.
    """

    shape: tuple[int, ...]
    values: int
    dtype = "int64"

    def __post_init__(self) -> None:
        if len(self.shape) != 1 or self.shape[0] < 1 or self.values < 2:
            raise DataError(
                f"a text of {self.shape} steps and {self.values} tokens cannot be predicted",
                hint="give at least one step and two tokens",
            )

    @property
    def outputs(self) -> int:
        """One logit for each token, at each step."""
        return self.values

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(steps, values)"""
        return (*self.shape, self.values)

    def check_values(self, labels: NDArray[Any]) -> None:
        """Each in [0, values)."""
        if (wrong := _beyond(labels, self.values)) is not None:
            raise DataError(
                f"token {wrong} is out of range: with {self.values} tokens they are 0 to "
                f"{self.values - 1}",
                hint="read the text with the vocabulary of the run",
            )

    def __str__(self) -> str:
        return f"the next of {self.values} tokens, {self.shape[0]} steps"


@dataclass(frozen=True)
class OwnTarget(Target):
    """What a task of the user's own predicts; its loss knows what it means.

    Attributes:
        shape: of one record's label.
        dtype: ``int64`` or ``float32``; float values must be finite.
    """

    shape: tuple[int, ...]
    dtype: Literal["int64", "float32"]

    @property
    def outputs(self) -> int:
        """As many as a label has numbers."""
        return int(np.prod(self.shape, dtype=np.int64))

    def check_values(self, labels: NDArray[Any]) -> None:
        """Each finite."""
        if labels.dtype == np.float32 and not (finite := np.isfinite(labels)).all():
            record = int(np.argwhere(~finite)[0, 0])
            raise DataError(
                f"the label of record {record} holds a NaN or infinite value",
                hint="clean the data or leave it out",
            )

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"
