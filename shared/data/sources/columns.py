"""A table in memory, column by column: numbers where all cells are numbers, words elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from calyx.shared.errors import DataError

Column = NDArray[np.float64] | list[str]
# What spreadsheets, R, SQL and pandas write where there is no value.
MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "?"})


@dataclass(frozen=True, eq=False)
class Columns:
    """One file's table.

    Attributes:
        shown: the file, for messages.
        columns: by name: numbers float64 (n,), NaN where a cell is missing, or words, empty where
            one is missing.
        lines: int64 (n,), the line (CSV) or row (Parquet) of each record, from 1.
        unit: what `lines` counts, for messages.
    """

    shown: str
    columns: Mapping[str, Column] = field(repr=False)
    lines: NDArray[np.int64] = field(repr=False)
    unit: str = "line"

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, record: int) -> str:
        """File and line of a record."""
        return f"{self.shown}, {self.unit} {self.lines[record]}"

    def words(self, name: str) -> list[str]:
        """The cells of a column as they were written, empty where one is missing.

        Raises:
            DataError: there is no such column.
        """
        column = self.column(name)
        if isinstance(column, list):
            return column
        return ["" if np.isnan(value) else _number_text(value) for value in column]

    def column(self, name: str) -> Column:
        """A column.

        Raises:
            DataError: there is no such column.
        """
        if name not in self.columns:
            raise DataError(
                f"{self.shown}: there is no column {name}; the columns are "
                f"{listed(list(self.columns))}",
                hint="name one of these",
            )
        return self.columns[name]

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column of numbers, NaN where a cell is missing.

        Raises:
            DataError: there is no such column, or a cell holds something else or no finite number.
        """
        column = self.column(name)
        if isinstance(column, list):
            wrong = next((i for i, cell in enumerate(column) if not _is_number(cell)), None)
            if wrong is None:
                return np.array([as_number(cell) for cell in column])
            record, cell = wrong, column[wrong]
            raise DataError(
                f"{self.where(record)}: {name} = {cell!r} is not a number",
                hint=(
                    "write decimal points, not commas"
                    if _is_decimal_comma(cell)
                    else "correct the cell or leave the record out"
                ),
            )
        if (infinite := np.isinf(column)).any():
            record = int(np.flatnonzero(infinite)[0])
            raise DataError(
                f"{self.where(record)}: {name} is infinite",
                hint="correct the cell or leave it out",
            )
        return column


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names for a message."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def as_number(cell: str) -> float:
    """The number in a cell, NaN where it is missing.

    Raises:
        ValueError: it holds something else. ``1_000`` and digits of other scripts are no numbers.
    """
    try:
        value = float(cell)
    except ValueError:
        if cell.lower() in MISSING:
            return math.nan
        raise
    if "_" in cell or not cell.isascii():
        raise ValueError(cell)
    return value


def _is_number(cell: str) -> bool:
    try:
        as_number(cell)
    except ValueError:
        return False
    return True


def _is_decimal_comma(cell: str) -> bool:
    return cell.count(",") == 1 and _is_number(cell.replace(",", "."))


def _number_text(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))
