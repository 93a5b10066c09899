"""From labels of any kind to classes 0, 1, 2 and so on, by a table that is stated.

``data.classes`` names the classes in their order, or says how many there are. Without it they are
the different labels that occur, in sorted order, which is what a simulation can do and a single
device cannot: it may lack one, and would number the others differently from everyone else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calyx.shared.config import data_settings
from calyx.shared.errors import DataError

# Far more than a classifier has; a column of ids or quantities would be one class a record.
_MOST_FOUND = 10_000
# Whole numbers up to here are class numbers even where few of them occur.
_DENSE = 100
_SHOWN = 8


@dataclass(frozen=True)
class Classes:
    """Numbered labels.

    Attributes:
        labels: int64 (n,).
        names: of the classes, in the order of their numbers.
        done: how labels became numbers, in words.
    """

    labels: NDArray[np.int64] = field(repr=False)
    names: tuple[str, ...]
    done: str


def numbered(
    labels: Sequence[str], stated: str, where: Callable[[int], str], what: str = "label"
) -> Classes:
    """Number the labels of a text-like source.

    Args:
        labels: one a record, stripped; no empty ones.
        stated: ``data.classes``.
        where: file and line of a record, for messages.
        what: what a label is called there.

    Raises:
        DataError: a label that is not among the stated ones, or that occurs once and is not stated;
            labels that are one for nearly every record.
    """
    names = data_settings.class_names(stated)
    if not names:
        counts = Counter(labels)
        names = _sorted(counts)
        _check_found(labels, counts, where, what)
    number = {name: index for index, name in enumerate(names)}
    found = np.empty(len(labels), np.int64)
    for record, label in enumerate(labels):
        index = number.get(label)
        if index is None:
            raise DataError(
                f"{where(record)}: {what} {label!r} is not among data.classes ({_listed(names)})",
                hint="add it there or correct the record",
            )
        found[record] = index
    origin = "as data.classes states" if stated else "the labels that occur, in sorted order"
    return Classes(found, names, f"classes {_table(names)}: {origin}")


def _check_found(
    labels: Sequence[str], counts: Counter[str], where: Callable[[int], str], what: str
) -> None:
    if len(counts) > _MOST_FOUND or (len(labels) >= 20 and 2 * len(counts) > len(labels)):
        raise DataError(
            f"{len(counts):,} different values of {what} in {len(labels):,} records: that is a "
            "quantity or an id, not a class",
            hint="name the column that holds the class, or set task.kind=regression for a quantity",
        )
    alone = next((label for label, number in counts.items() if number == 1), None)
    if alone is not None:
        record = labels.index(alone)
        raise DataError(
            f"{where(record)}: {what} {alone!r} occurs once, so it cannot be both learned and "
            "tested",
            hint=(
                "correct it if it is a mistake, leave the record out, state all classes with "
                "data.classes, or set task.kind=regression for a quantity"
            ),
        )
    if len(counts) == 1:
        raise DataError(
            f"{where(0)}: {what} is {labels[0]!r} in every record, and one class cannot be learned",
            hint="give records of others too, or state all classes with data.classes",
        )


def numbered_integers(
    parts: Sequence[NDArray[np.int64]], stated: str
) -> tuple[list[NDArray[np.int64]], int, str]:
    """Class numbers of arrays that hold whole numbers, such as those of an archive.

    Args:
        parts: labels of the training records, then maybe of the test records, int64 (n,).
        stated: ``data.classes``. Names that are all whole numbers map these numbers to classes;
            other names only say how many classes there are.

    Returns:
        The labels as class numbers, how many classes there are, and what was done, or empty.

    Raises:
        DataError: numbers far apart that are not stated, or a label that is not among the stated.
    """
    names = data_settings.class_names(stated)
    if names:
        values = [int(name) for name in names if name.lstrip("-").isdecimal()]
        if len(values) < len(names) or values == list(range(len(names))):
            return list(parts), len(names), f"{len(names)} classes, as data.classes states"
        return (
            _mapped(parts, values),
            len(names),
            f"classes {_table(names)}: as data.classes states",
        )
    highest = max((int(part.max(initial=0)) for part in parts), default=0)
    different = len(np.unique(np.concatenate(parts)))
    if highest >= _DENSE and highest + 1 > 10 * different:
        values = np.unique(np.concatenate(parts))[:_SHOWN].tolist()
        listed = ",".join(map(str, values)) + (",..." if different > _SHOWN else "")
        raise DataError(
            f"labels go up to {highest} but only {different} different ones occur ({listed})",
            hint=(
                f"set data.classes={listed} to number these, or data.classes={highest + 1} if "
                "there really are that many"
            ),
        )
    return list(parts), highest + 1, ""


def _mapped(parts: Sequence[NDArray[np.int64]], values: list[int]) -> list[NDArray[np.int64]]:
    order = np.argsort(values)
    ascending = np.asarray(values, np.int64)[order]
    mapped = []
    for part in parts:
        place = np.minimum(np.searchsorted(ascending, part), len(values) - 1)
        if (wrong := ascending[place] != part).any():
            record = int(np.flatnonzero(wrong)[0])
            raise DataError(
                f"record {record}: label {part[record]} is not among data.classes "
                f"({_listed(tuple(map(str, values)))})",
                hint="add it there or correct the record",
            )
        mapped.append(order[place].astype(np.int64))
    return mapped


def _sorted(found: Counter[str]) -> tuple[str, ...]:
    """Whole numbers by value, everything else as text."""
    if all(label.lstrip("-").isdecimal() for label in found):
        return tuple(sorted(found, key=lambda label: (int(label), label)))
    return tuple(sorted(found))


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _table(names: tuple[str, ...]) -> str:
    shown = ", ".join(f"{name} = {index}" for index, name in enumerate(names[:_SHOWN]))
    return shown + (f", ... ({len(names)})" if len(names) > _SHOWN else "")


def as_setting(names: Sequence[Any]) -> str:
    """Names as ``data.classes`` takes them."""
    quoted = (f'"{name}"' if "," in str(name) else str(name) for name in names)
    return ",".join(quoted)
