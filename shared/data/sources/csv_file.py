"""CSV files: a line of column names, then one record a line.

Read with the standard library's `csv`. The delimiter is the one of comma, semicolon, tab and bar
that the first line has most of. Lines, cells, columns and records are bounded, and each fault names
its line: another number of cells, bytes that are not of the encoding, a quote that never ends.
"""

from __future__ import annotations

import csv
import io
import sys
from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from calyx.shared.data.sources.columns import MISSING, Column, Columns, as_number
from calyx.shared.data.sources.files import SourceFile
from calyx.shared.errors import DataError

_DELIMITERS = ",;\t|"
_MOST_CELL = 1 << 17  # csv's own default for a field, characters
_MOST_LINE = 1 << 24
_MOST_COLUMNS = 1 << 16
_CHUNK = 4096
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


class _HoldsWords(Exception):
    def __init__(self, column: int) -> None:
        self.column = column


def read_csv(file: SourceFile, encoding: str, as_words: Collection[str] = ()) -> Columns:
    """Read one CSV file.

    Args:
        file: the file.
        encoding: of its text; a UTF-8 byte-order mark is passed over.
        as_words: columns to keep as they are written, also where all cells are numbers.

    Returns:
        Its columns in their order; a column is of numbers if every cell is one or is missing.

    Raises:
        DataError: it is empty or not such a file; the message names file and line.
    """
    text = decoded(file, encoding)
    first = text.split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=lambda d: (first.count(d), -_DELIMITERS.index(d)))
    header = _header(file, next(_rows(file, text, delimiter), (1, []))[1])
    words = {place for place, name in enumerate(header) if name in as_words}
    while True:
        try:
            columns, lines = _columns(file, text, delimiter, header, words)
            break
        except _HoldsWords as found:
            # A column of numbers up to here: what they looked like is needed after all.
            words.add(found.column)
    if not len(lines):
        raise DataError(f"{file.shown} has column names but no records", hint="give at least one")
    return Columns(file.shown, dict(zip(header, columns, strict=True)), lines)


def decoded(file: SourceFile, encoding: str) -> str:
    """The text of a file.

    Raises:
        DataError: it is empty, holds bytes that are not of the encoding, or NUL characters.
    """
    content = file.content()
    if not content.strip():
        raise DataError(f"{file.shown} is empty", hint="give a file with records, or leave it out")
    mark = _BYTE_ORDER_MARKS.get(content[:2])
    if mark and encoding != mark:
        raise DataError(
            f"{file.shown} is UTF-16 text",
            hint=f"set data.encoding={mark}, or save as UTF-8",
        )
    try:
        text = content.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{file.shown}, line {line}: byte 0x{content[error.start]:02x} is not {encoding} text",
            hint=(
                "save the file in one encoding, or set data.encoding (cp1252 for Windows, latin-1)"
            ),
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError(
            f"{file.shown}, line {line}: a NUL character, which text does not have",
            hint="save the file as text",
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _header(file: SourceFile, cells: Sequence[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if len(names) > _MOST_COLUMNS:
        raise DataError(
            f"{file.shown}: more than {_MOST_COLUMNS:,} columns",
            hint="swap rows and columns",
        )
    if "" in names:
        place = names.index("") + 1
        raise DataError(
            f"{file.shown}, line 1: column {place} has no name",
            hint="name it or leave it out",
        )
    if len(set(names)) != len(names):
        twice = next(name for name, number in Counter(names).items() if number > 1)
        raise DataError(f"{file.shown}, line 1: two columns are named {twice}", hint="rename one")
    if names and all(_is_number(name) for name in names):
        raise DataError(
            f"{file.shown}, line 1 holds numbers where the names of the columns must be",
            hint="add a line with names",
        )
    return names


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _rows(file: SourceFile, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each line that is not blank."""
    reader = csv.reader(_lines(file, text), delimiter=delimiter, strict=True)
    begins = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{file.shown}, line {begins}: {error}",
                hint="correct the quotes there, or shorten the cell",
            ) from None
        if cells and (len(cells) > 1 or cells[0].strip()):
            yield begins, cells
        begins = reader.line_num + 1


def _lines(file: SourceFile, text: str) -> Iterator[str]:
    for number, line in enumerate(io.StringIO(text), 1):
        if len(line) > _MOST_LINE:
            raise DataError(
                f"{file.shown}, line {number}: a line of {len(line):,} characters, so this is not "
                "a CSV file or its lines do not end",
                hint="save it again as CSV",
            )
        yield line


def _columns(
    file: SourceFile, text: str, delimiter: str, header: Sequence[str], words: Collection[int]
) -> tuple[list[Column], NDArray[np.int64]]:
    lines = array("q")
    kept: list[list[str] | array[float]] = [
        [] if place in words else array("d") for place in range(len(header))
    ]
    chunk: list[list[str]] = []
    rows = _rows(file, text, delimiter)
    next(rows, None)
    for line, cells in rows:
        if len(cells) != len(header):
            raise DataError(
                f"{file.shown}, line {line}: {len(cells)} cells, but {len(header)} columns",
                hint="correct the line, or put cells with a delimiter in them in double quotes",
            )
        lines.append(line)
        chunk.append(cells)
        if len(chunk) == _CHUNK:
            _keep(kept, chunk)
            chunk.clear()
    _keep(kept, chunk)
    columns: list[Column] = [
        column if isinstance(column, list) else np.array(column, np.float64) for column in kept
    ]
    return columns, np.array(lines, np.int64)


def _keep(kept: list[list[str] | array[float]], chunk: list[list[str]]) -> None:
    for place, cells in enumerate(zip(*chunk, strict=True)):
        column = kept[place]
        if isinstance(column, list):
            # One copy of each word: categories repeat.
            column.extend(sys.intern(_word(cell)) for cell in cells)
            continue
        try:
            column.extend([as_number(cell.strip()) for cell in cells])
        except ValueError:
            raise _HoldsWords(place) from None


def _word(cell: str) -> str:
    stripped = cell.strip()
    return "" if stripped.lower() in MISSING else stripped
