"""Sensor logs: a CSV file for each recording, in folders or a tar archive, cut into windows.

A record is a window of ``data.window`` rows. Windows do not overlap unless ``data.window_step``
says so, since then one row is in several records, and what protects a record protects no row.
Its label is the one that most of its rows have, of equals the one that comes first in it. What is
left at the end of a recording is dropped. Windows of one recording are never on both sides of the
test split.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from calyx.shared.config import data_settings
from calyx.shared.config.schema import DataConfig
from calyx.shared.data.sources.class_labels import numbered
from calyx.shared.data.sources.columns import Columns, listed
from calyx.shared.data.sources.csv_file import read_csv
from calyx.shared.data.sources.files import SourceFile, source_files
from calyx.shared.data.sources.naming import named_files
from calyx.shared.data.sources.orientation import along_gravity, check_axes
from calyx.shared.data.sources.scaling import UNSCALED
from calyx.shared.data.sources.source_records import SourceRecords, shortened
from calyx.shared.errors import DataError

SUFFIXES = (".csv",)


def read_sensors(config: DataConfig) -> SourceRecords:
    """Read all recordings and cut them into windows.

    Returns:
        Features float32 (n, window, columns), classes, subjects where the pattern names
        them.

    Raises:
        DataError: a file, line or column is named that cannot be used.
    """
    label = data_settings.names(config.label)
    if len(label) != 1:
        raise DataError(
            "data.label does not name one column with the class",
            hint=(
                f"set it, as in --set data.label=COLUMN (calyx data inspect {config.directory} "
                "shows the columns)"
            ),
        )
    named = named_files(source_files(config.directory, SUFFIXES), config, with_label=False)
    cut = _Windows(config, label[0])
    for file in named.files:
        cut.add(file)
    if not cut.features:
        raise DataError(
            f"{config.directory}: no recording has {config.window} rows, a window's length",
            hint="set data.window lower",
        )
    classes = numbered(cut.labels, config.classes, lambda window: cut.where[window], label[0])
    clients, is_test = (
        None if column is None else np.repeat(column, cut.counts)
        for column in (named.clients, named.is_test)
    )
    return SourceRecords(
        features=np.concatenate(cut.features),
        labels=classes.labels,
        class_names=classes.names,
        natural_ids=clients,
        files=np.repeat([file.name for file in named.files], cut.counts),
        is_test=is_test,
        done=(*cut.done(), classes.done),
        warnings=(*named.warnings, *cut.warnings()),
    )


class _Windows:
    """Windows of all recordings so far."""

    def __init__(self, config: DataConfig, label: str) -> None:
        self._config, self._label = config, label
        self._step = config.window_step or config.window
        self._columns = list(data_settings.names(config.columns))
        self._bounds = data_settings.bounds(config.bounds)
        self._first = ""
        self._low: NDArray[np.float64] | None = None
        self._high: NDArray[np.float64] | None = None
        self._rows = self._dropped = self._clipped = self._mixed = 0
        self._short: list[str] = []
        self.features: list[NDArray[np.float32]] = []
        self.labels: list[str] = []
        self.where: list[str] = []
        self.counts: list[int] = []

    def add(self, file: SourceFile) -> None:
        """Cut one recording."""
        table = read_csv(file, self._config.encoding, {self._label})
        if self._label not in table.columns:
            raise DataError(
                f"{file.shown}: there is no column {self._label}; the columns are "
                f"{listed(list(table.columns))}",
                hint=(
                    "set data.label, or leave files that are no recordings out with "
                    "data.name_pattern"
                ),
            )
        words = table.words(self._label)
        if "" in words:
            raise DataError(
                f"{table.where(words.index(''))}: {self._label} is empty, and every row needs its "
                "label",
                hint="fill it in or leave the row out",
            )
        values = self._values(table)
        starts = range(0, len(table) - self._config.window + 1, self._step)
        self.counts.append(len(starts))
        self._rows += len(table)
        if not starts:
            self._short.append(file.name)
            self._dropped += len(table)
            return
        self._dropped += max(len(table) - (starts[-1] + self._config.window), 0)
        shape = self._config.window, values.shape[1]
        views = np.lib.stride_tricks.sliding_window_view(values, shape)[:, 0]
        windows = views[:: self._step].astype(np.float32)
        is_turned = self._config.orientation == "gravity"
        self.features.append(along_gravity(windows) if is_turned else windows)
        for start in starts:
            counts = Counter(words[start : start + self._config.window])
            self._mixed += len(counts) > 1
            self.labels.append(counts.most_common(1)[0][0])
            self.where.append(table.where(start))

    def _values(self, table: Columns) -> NDArray[np.float64]:
        self._choose_columns(table)
        columns = []
        for name in self._columns:
            values = table.numbers(name)
            if (missing := np.isnan(values)).any():
                record = int(np.flatnonzero(missing)[0])
                raise DataError(
                    f"{table.where(record)}: {name} is empty or NaN",
                    hint="leave these rows or the column out",
                )
            given = self._bounds.get(name) or self._bounds.get("*")
            if given is not None:
                low, high = given
                self._clipped += int(np.count_nonzero((values < low) | (values > high)))
                values = (np.clip(values, low, high) - low) * (2 / (high - low)) - 1
            columns.append(values)
        made = np.stack(columns, axis=1)
        low_now, high_now = made.min(axis=0), made.max(axis=0)
        self._low = low_now if self._low is None else np.minimum(self._low, low_now)
        self._high = high_now if self._high is None else np.maximum(self._high, high_now)
        return made

    def _choose_columns(self, table: Columns) -> None:
        if not self._first:
            self._first = table.shown
            if not self._columns:
                self._columns = [name for name in table.columns if name != self._label]
            if self._label in self._columns:
                raise DataError(
                    f"data.columns holds the label {self._label}, which cannot be learned from",
                    hint="leave it out of data.columns",
                )
            unknown = [name for name in self._bounds if name not in ("*", *self._columns)]
            if unknown:
                raise DataError(
                    f"data.bounds names {unknown[0]}, which is not a column that is learned from",
                    hint=f"name one of {listed(self._columns)}",
                )
            if not self._columns:
                raise DataError(f"{table.shown}: no column is left to learn from", hint="add one")
            if self._config.orientation == "gravity":
                check_axes(self._columns, self._bounds)
        for name in self._columns:
            if name not in table.columns:
                raise DataError(
                    f"{table.shown}: there is no column {name}, which {self._first} has",
                    hint=(
                        "give all recordings the same columns, or leave others out with "
                        "data.name_pattern"
                    ),
                )

    def done(self) -> list[str]:
        config = self._config
        overlap = "do not overlap" if self._step >= config.window else "overlap"
        said = [
            f"{len(self.labels):,} windows of {config.window} rows, which {overlap}; "
            f"{self._dropped:,} of {self._rows:,} rows at the ends are left out"
        ]
        if self._mixed:
            said.append(f"{self._mixed:,} windows of several labels have the most frequent one")
        bounded = [name for name in self._columns if name in self._bounds or "*" in self._bounds]
        if bounded:
            clipped = f", {self._clipped:,} values beyond them cut off" if self._clipped else ""
            said.append(f"{shortened(bounded)} mapped from data.bounds to -1 to 1{clipped}")
        if config.orientation == "gravity":
            said.append("x, y, z of each sensor turned into what is along gravity and across it")
        if others := [name for name in self._columns if name not in bounded]:
            said.append(f"{shortened(others)} taken as stored")
        return said

    def warnings(self) -> list[str]:
        said = []
        if self._short:
            said.append(
                f"{len(self._short):,} recordings are shorter than a window and left out: "
                f"{shortened(self._short)}"
            )
        if self._step < self._config.window:
            said.append(
                f"windows overlap (data.window_step = {self._step}), so one row is in several "
                "records: what epsilon promises for a record does not hold for a row"
            )
        assert self._low is not None and self._high is not None
        unscaled = [
            f"{name} ({low:g} to {high:g})"
            for name, low, high in zip(self._columns, self._low, self._high, strict=True)
            if max(-low, high) > UNSCALED
        ]
        if unscaled:
            said.append(
                f"columns look unscaled: {shortened(unscaled, 8)}; set "
                "data.bounds=COLUMN=LOW:HIGH from what is known about them, and not from these "
                "records, or leave a column such as a time out with data.columns"
            )
        return said
