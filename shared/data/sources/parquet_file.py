"""Parquet files: tables with types. Read with pyarrow, which comes with the simulation extra."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from calyx.shared.data.sources.columns import Column, Columns
from calyx.shared.data.sources.files import LIMITS, SourceFile
from calyx.shared.errors import DataError
from calyx.shared.host.optional_packages import require


def read_parquet(file: SourceFile) -> Columns:
    """Read one Parquet file.

    Returns:
        Its columns: numbers and booleans as float64, words as text.

    Raises:
        DataError: it is damaged, has no rows, or a column of another kind; the file is named.
        UsageError: pyarrow is not installed.
    """
    require("pyarrow", "simulation", f"the Parquet file {file.shown}")
    import pyarrow
    import pyarrow.parquet

    try:
        opened = pyarrow.parquet.ParquetFile(io.BytesIO(file.content()))
        groups = (opened.metadata.row_group(i) for i in range(opened.metadata.num_row_groups))
        promised = sum(group.total_byte_size for group in groups)
        if promised > LIMITS.total_bytes:
            raise DataError(
                f"{file.shown} unpacks to {promised:,} bytes, more than the "
                f"{LIMITS.total_bytes:,} that are read",
                hint="divide it",
            )
        table = opened.read()
    except (pyarrow.ArrowException, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{file.shown} is damaged or not a Parquet file ({reason})",
            hint="write it again",
        ) from None
    if not table.num_rows:
        raise DataError(f"{file.shown} has no rows", hint="give at least one")
    names = table.column_names
    if len(set(names)) != len(names):
        raise DataError(f"{file.shown}: two columns have the same name", hint="rename one")
    columns = {name: _column(table.column(name), name, file) for name in names}
    return Columns(file.shown, columns, np.arange(1, table.num_rows + 1), unit="row")


def _column(column: Any, name: str, file: SourceFile) -> Column:
    import pyarrow

    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pyarrow.types.is_boolean(kind) or pyarrow.types.is_integer(kind):
        values = column.cast(pyarrow.int64()) if pyarrow.types.is_boolean(kind) else column
        return np.asarray(values.to_numpy(), np.float64)
    if pyarrow.types.is_floating(kind):
        return np.asarray(column.to_numpy(), np.float64)
    if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
        return ["" if cell is None else cell.strip() for cell in column.to_pylist()]
    raise DataError(
        f"{file.shown}: column {name} holds {kind}, neither numbers nor words",
        hint="convert it or leave it out",
    )
