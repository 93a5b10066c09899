"""Tables: a CSV or Parquet file, or a folder with some of the same columns.

A record is a row. Its label is one column of classes or real values, or several columns of 0 and 1.
Numbers are mapped by the public bounds of ``data.bounds`` to -1 to 1, or taken as they are; never
by what the records hold. Words become one column of 0 and 1 for each category: those that
``data.categories`` states, or else those that occur.

In a folder, files whose name begins with ``test`` are the test set; the others are for training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from calyx.shared.config import data_settings
from calyx.shared.config.schema import DataConfig
from calyx.shared.data.sources.class_labels import numbered
from calyx.shared.data.sources.columns import Columns, listed
from calyx.shared.data.sources.csv_file import read_csv
from calyx.shared.data.sources.files import SourceFile, source_files
from calyx.shared.data.sources.parquet_file import read_parquet
from calyx.shared.data.sources.scaling import UNSCALED
from calyx.shared.data.sources.source_records import SourceRecords, shortened
from calyx.shared.errors import DataError

SUFFIXES = (".csv", ".tsv", ".parquet")
LabelKind = Literal["class", "real", "several"]
# A column of words with more is an id or free text, and would be a column of features for each.
_MOST_CATEGORIES = 1000


def read_table(
    config: DataConfig, label_kind: LabelKind = "class", *, is_part: bool = False
) -> SourceRecords:
    """Read all rows.

    Args:
        config: ``directory`` and the keys of tables.
        label_kind: of ``label``.
        is_part: these are the records of one device, which may lack a category, so that columns of
            words must be stated.

    Returns:
        Features float32 (n, columns), labels of that kind, ids from the column ``natural_id`` if
        there is one.

    Raises:
        DataError: a file, line or column is named that cannot be used.
    """
    labels = data_settings.names(config.label)
    if not labels:
        raise DataError(
            "data.label is not set",
            hint=(
                "name the column with the class, as in --set data.label=COLUMN (calyx data inspect "
                f"{config.directory} shows the columns)"
            ),
        )
    if len(labels) > 1 and label_kind != "several":
        raise DataError(
            f"data.label names {len(labels)} columns, and a record has one label",
            hint="name one, or set task.kind=multilabel",
        )
    tables = [
        (file, read_columns(file, config, labels))
        for file in source_files(config.directory, SUFFIXES)
    ]
    joined = _Joined([table for _, table in tables])
    ids = _natural_ids(joined, config)
    _check_record_ids(joined, config)
    learned = _feature_names(joined, config, labels)
    features = _Features(joined, config, is_part)
    for name in learned:
        features.add(name)
    target, class_names, done = _labels(joined, labels, label_kind, config)
    bounds = _label_bounds(labels[0], config) if label_kind == "real" else None
    sizes = [len(table) for _, table in tables]
    is_test = np.repeat([_is_test(file, len(tables)) for file, _ in tables], sizes)
    return SourceRecords(
        features=features.values(),
        labels=target,
        class_names=class_names,
        natural_ids=ids,
        files=np.repeat([file.name for file, _ in tables], sizes),
        is_test=is_test if is_test.any() else None,
        done=(*features.done(), *done),
        warnings=(*features.warnings(), *_unscaled_label(labels[0], target, bounds)),
        bounds=bounds,
    )


def read_columns(file: SourceFile, config: DataConfig, labels: Sequence[str] = ()) -> Columns:
    """The columns of one file, by its kind; labels and ids as they are written."""
    if file.name.lower().endswith(".parquet"):
        return read_parquet(file)
    as_words = {*labels, config.natural_id, config.record_id}
    return read_csv(
        file, config.encoding, as_words | set(data_settings.categories(config.categories))
    )


def _is_test(file: SourceFile, files: int) -> bool:
    return files > 1 and file.name.rpartition("/")[2].lower().startswith("test")


class _Joined:
    """Several files with the same columns, one after the other."""

    def __init__(self, tables: Sequence[Columns]) -> None:
        first = tables[0]
        for other in tables[1:]:
            if set(other.columns) != set(first.columns):
                odd = set(other.columns) ^ set(first.columns)
                raise DataError(
                    f"{other.shown} has other columns than {first.shown} ({listed(sorted(odd))})",
                    hint="give all files of a folder the same columns",
                )
        self.tables = tables
        self.names = list(first.columns)
        self._ends = np.cumsum([len(table) for table in tables])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def where(self, record: int) -> str:
        number = int(np.searchsorted(self._ends, record, side="right"))
        table = self.tables[number]
        return table.where(record - (int(self._ends[number]) - len(table)))

    def words(self, name: str) -> list[str]:
        return [word for table in self.tables for word in table.words(name)]

    def numbers(self, name: str) -> NDArray[np.float64]:
        return np.concatenate([table.numbers(name) for table in self.tables])

    def holds_words(self, name: str) -> bool:
        return any(isinstance(table.column(name), list) for table in self.tables)

    def complete_words(self, name: str, what: str) -> list[str]:
        """The words of a column where none may be missing."""
        words = self.words(name)
        if "" in words:
            raise DataError(
                f"{self.where(words.index(''))}: {name} is empty, and every record needs its "
                f"{what}",
                hint="fill it in or leave the record out",
            )
        return words


def _natural_ids(table: _Joined, config: DataConfig) -> NDArray[Any] | None:
    if config.natural_id in table.names:
        return np.array(table.complete_words(config.natural_id, "client"))
    if config.partition == "natural":
        raise DataError(
            f"{table.tables[0].shown}: data.partition = natural needs a column that says whose "
            f"record it is, and there is no {config.natural_id}",
            hint=f"set data.natural_id to one of {listed(table.names)}",
        )
    return None


def _check_record_ids(table: _Joined, config: DataConfig) -> None:
    if not config.record_id:
        return
    first: dict[str, int] = {}
    for record, word in enumerate(table.complete_words(config.record_id, "id")):
        if word in first:
            raise DataError(
                f"{table.where(record)}: {config.record_id} {word!r} is also in "
                f"{table.where(first[word])}: a record that counts twice has half the privacy",
                hint="leave one out",
            )
        first[word] = record


def _feature_names(table: _Joined, config: DataConfig, labels: Sequence[str]) -> list[str]:
    others = {*labels, config.natural_id, config.record_id}
    named = data_settings.names(config.columns)
    names = list(named) if named else [name for name in table.names if name not in others]
    for label in labels:
        table.tables[0].column(label)
        if label in named:
            raise DataError(
                f"data.columns holds the label {label}, which cannot be learned from",
                hint="leave it out of data.columns",
            )
    if not names:
        raise DataError(f"{table.tables[0].shown}: no column is left to learn from", hint="add one")
    stated: list[tuple[str, Iterable[str]]] = [
        ("bounds", data_settings.bounds(config.bounds)),
        ("categories", data_settings.categories(config.categories)),
    ]
    for key, columns in stated:
        known = {*names, *labels, "*"} if key == "bounds" else {*names}
        if unknown := [name for name in columns if name not in known]:
            raise DataError(
                f"data.{key} names {unknown[0]}, which is not a column that is learned from",
                hint=f"name one of {listed(names)}",
            )
    return names


@dataclass
class _Features:
    """Columns of features, built up one by one."""

    table: _Joined
    config: DataConfig
    is_part: bool

    def __post_init__(self) -> None:
        self._bounds = data_settings.bounds(self.config.bounds)
        self._categories = data_settings.categories(self.config.categories)
        self._parts: list[NDArray[np.float32]] = []
        self._bounded: list[str] = []
        self._as_stored: list[str] = []
        self._unscaled: list[str] = []
        self._one_hot: list[str] = []
        self._clipped = 0

    def add(self, name: str) -> None:
        if name in self._categories or self.table.holds_words(name):
            self._add_words(name)
        else:
            self._add_numbers(name)

    def _add_numbers(self, name: str) -> None:
        values = self.table.numbers(name)
        missing = np.isnan(values)
        self._check_missing(name, missing)
        given = self._bounds.get(name) or self._bounds.get("*")
        if given is None:
            self._as_stored.append(name)
            there = values[~missing]
            low, high = (float(there.min()), float(there.max())) if len(there) else (0.0, 0.0)
            if max(-low, high) > UNSCALED:
                self._unscaled.append(f"{name} ({low:g} to {high:g})")
        else:
            low, high = given
            self._bounded.append(name)
            self._clipped += int(np.count_nonzero((values < low) | (values > high)))
            values = (np.clip(values, low, high) - low) * (2 / (high - low)) - 1
        with np.errstate(over="ignore"):  # what overflows becomes infinite and is refused later
            self._append(np.where(missing, 0, values).astype(np.float32), missing)

    def _add_words(self, name: str) -> None:
        words = self.table.words(name)
        missing = np.array([not word for word in words])
        self._check_missing(name, missing)
        categories: Sequence[str] = self._categories.get(name, ())
        is_stated = bool(categories)
        if not is_stated:
            if self.is_part:
                raise DataError(
                    f"{self.table.tables[0].shown}: {name} holds words, and a device may lack "
                    "some that others have",
                    hint=f"state them all, as in data.categories={name}=ONE|OTHER",
                )
            categories = sorted({word for word in words if word})
            self._check_words(name, words, categories)
        place = {word: number for number, word in enumerate(categories)}
        one_hot = np.zeros((len(words), len(categories)), np.float32)
        for record, word in enumerate(words):
            if not word:
                continue
            if word not in place:
                raise DataError(
                    f"{self.table.where(record)}: {name} = {word!r} is not among its categories "
                    f"in data.categories ({listed(categories)})",
                    hint="add it there or correct the cell",
                )
            one_hot[record, place[word]] = 1
        origin = "stated" if is_stated else "those that occur"
        self._one_hot.append(f"{name} as {len(categories)} columns of 0 and 1 ({origin})")
        self._append(one_hot, missing)

    def _check_words(self, name: str, words: list[str], categories: Sequence[str]) -> None:
        if not categories:
            raise DataError(
                f"{self.table.tables[0].shown}: column {name} is empty",
                hint="leave it out",
            )
        numbers = [word for word in words if _reads_as_number(word)]
        if 2 * len(numbers) > len(words):
            # Nearly all are numbers: the others are slips, not categories.
            try:
                self.table.numbers(name)
            except DataError as error:
                raise DataError(
                    str(error),
                    hint=f"{error.hint}, or state the words with data.categories",
                ) from None
        many = len(categories) > _MOST_CATEGORIES
        if many or (len(words) >= 20 and 2 * len(categories) > len(words)):
            raise DataError(
                f"{self.table.tables[0].shown}: {name} has {len(categories):,} different words in "
                f"{len(words):,} records: that is text or an id, not a category",
                hint=(
                    "leave it out with data.columns, or name it with data.natural_id or "
                    "data.record_id"
                ),
            )

    def _check_missing(self, name: str, missing: NDArray[np.bool_]) -> None:
        if missing.any() and self.config.missing == "refuse":
            record = int(np.flatnonzero(missing)[0])
            raise DataError(
                f"{self.table.where(record)}: {name} is empty or NaN (so are {missing.sum():,} of "
                f"{len(missing):,} cells of this column)",
                hint="fill it in, leave it out, or set data.missing=indicator",
            )

    def _append(self, values: NDArray[np.float32], missing: NDArray[np.bool_]) -> None:
        self._parts.append(values.reshape(len(values), -1))
        if self.config.missing == "indicator":
            # For every column, whether this file misses a cell or not: the shape must not tell.
            self._parts.append(missing.astype(np.float32)[:, np.newaxis])

    def values(self) -> NDArray[np.float32]:
        return np.concatenate(self._parts, axis=1)

    def done(self) -> list[str]:
        said = []
        if self._bounded:
            clipped = f", {self._clipped:,} values beyond them cut off" if self._clipped else ""
            said.append(f"{shortened(self._bounded)} mapped from data.bounds to -1 to 1{clipped}")
        if self._as_stored:
            said.append(f"{shortened(self._as_stored)} taken as stored")
        said += self._one_hot
        if self.config.missing == "indicator":
            said.append("missing cells are 0, with a column for each that says so")
        return said

    def warnings(self) -> tuple[str, ...]:
        if not self._unscaled:
            return ()
        return (
            f"columns look unscaled: {shortened(self._unscaled, 6)}; set "
            "data.bounds=COLUMN=LOW:HIGH from what is known about them, and not from these records",
        )


def _reads_as_number(word: str) -> bool:
    try:
        float(word.replace(",", "."))
    except ValueError:
        return False
    return True


def _labels(
    table: _Joined, names: Sequence[str], kind: LabelKind, config: DataConfig
) -> tuple[NDArray[np.int64] | NDArray[np.float32], tuple[str, ...], tuple[str, ...]]:
    where: Callable[[int], str] = table.where
    if kind == "class":
        words = table.complete_words(names[0], "label")
        found = numbered(words, config.classes, where, names[0])
        return found.labels, found.names, (found.done,)
    columns = []
    for name in names:
        table.complete_words(name, "label")
        columns.append(_as_numbers(table, name))
    if kind == "real":
        return columns[0].astype(np.float32), (), (f"{names[0]} taken as stored",)
    for name, column in zip(names, columns, strict=True):
        if (wrong := ~np.isin(column, (0, 1))).any():
            record = int(np.flatnonzero(wrong)[0])
            raise DataError(
                f"{where(record)}: {name} = {column[record]:g}, but of several labels each must "
                "be 0 or 1",
                hint="correct the cell",
            )
    return np.stack(columns, axis=1).astype(np.float32), tuple(names), ()


# What is learned as -1 to 1 where nothing is said.
_PLAIN = (-1.0, 1.0)


def _label_bounds(name: str, config: DataConfig) -> tuple[float, float]:
    """The public bounds of a real label; ``*`` is for columns that are learned from."""
    return data_settings.bounds(config.bounds).get(name, _PLAIN)


def _unscaled_label(
    name: str, labels: NDArray[Any], bounds: tuple[float, float] | None
) -> tuple[str, ...]:
    if bounds != _PLAIN or float(np.abs(labels).max()) <= UNSCALED:
        return ()
    return (
        f"the label looks unscaled: {name} ({labels.min():g} to {labels.max():g}); set "
        f"data.bounds={name}=LOW:HIGH from what is known about it, and not from these records",
    )


def _as_numbers(table: _Joined, name: str) -> NDArray[np.float64]:
    found = np.empty(len(table))
    for record, word in enumerate(table.words(name)):
        try:
            found[record] = float(word)
        except ValueError:
            raise DataError(
                f"{table.where(record)}: {name} = {word!r} is not a number",
                hint="correct the cell or leave the record out",
            ) from None
    if not np.isfinite(found).all():
        record = int(np.flatnonzero(~np.isfinite(found))[0])
        raise DataError(
            f"{table.where(record)}: {name} is NaN or infinite",
            hint="leave the record out",
        )
    return found
