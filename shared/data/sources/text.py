"""Text in the layouts that people have, as tokens of a public vocabulary.

==============  ====================================================================================
``lines``       ``label<TAB>text``, one record a line
``csv``         columns with label and text, and maybe whose it is
``class_files`` a file a class, one record a line, the class after the last dot: ``NAME.pos``
``roles``       blocks with a blank line between; ``ROLE:`` on a line of its own, then what is said
==============  ====================================================================================

Text of roles has no label: it predicts itself. All that a role says is joined in its order and cut
into records of the public length, without overlap; the role is the client.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from calyx.shared.data.sources.class_labels import numbered
from calyx.shared.data.sources.csv_file import decoded, read_csv
from calyx.shared.data.sources.files import SourceFile, source_files
from calyx.shared.data.sources.source_records import SourceRecords
from calyx.shared.data.sources.vocabulary import Vocabulary, padded
from calyx.shared.errors import DataError

Layout = Literal["lines", "csv", "class_files", "roles"]
_ROLE = re.compile(r"\S[^:\n]{0,79}:")
_NO_DATA = (".md", ".rst", ".json", ".py")


@dataclass(frozen=True)
class TextColumns:
    """Names of columns of a CSV file; no client if `client` is empty."""

    text: str = "text"
    label: str = "label"
    client: str = ""


@dataclass(frozen=True)
class _Lines:
    """Labelled lines."""

    texts: list[str]
    labels: list[str]
    where: list[str]
    files: list[str]
    clients: list[str] | None = None


def read_text(
    place: str,
    layout: Layout,
    vocabulary: Vocabulary,
    length: int,
    *,
    columns: TextColumns = TextColumns(),
    classes: str = "",
    encoding: str = "utf-8",
) -> SourceRecords:
    """Read a file or folder of text.

    Args:
        place: the file or folder.
        layout: see the module docstring.
        vocabulary: a public one.
        length: tokens of a record; longer ones are cut, shorter ones padded with 0.
        columns: of a CSV file.
        classes: as ``data.classes``.
        encoding: of the files.

    Returns:
        Tokens int64 (n, length); classes, or None for roles.

    Raises:
        DataError: a file or line is named that cannot be used.
    """
    if layout == "roles":
        return _roles(place, vocabulary, length, encoding)
    read = {"lines": _tabbed, "class_files": _class_files}
    found = _csv(place, columns, encoding) if layout == "csv" else read[layout](place, encoding)
    numbers = numbered(found.labels, classes, lambda record: found.where[record])
    tokens = [vocabulary.tokens(text) for text in found.texts]
    if empty := [record for record, row in enumerate(tokens) if not row]:
        raise DataError(
            f"{found.where[empty[0]]}: there is no word in it",
            hint="leave the line out",
        )
    cut = sum(len(row) > length for row in tokens)
    return SourceRecords(
        features=padded(tokens, length),
        tokens=vocabulary.size,
        labels=numbers.labels,
        class_names=numbers.names,
        natural_ids=None if found.clients is None else np.array(found.clients),
        files=np.array(found.files),
        done=(
            vocabulary.done,
            f"{length} tokens a record; {cut:,} of {len(tokens):,} are longer and were cut",
            numbers.done,
        ),
    )


def layout_of(place: str, encoding: str = "utf-8") -> Layout | None:
    """The layout that a file or folder seems to have, None if it has none of these.

    Raises:
        DataError: it cannot be read.
    """
    path = Path(place)
    if path.is_dir():
        return "class_files" if len(_files_of_classes(path)) >= 2 else None
    if path.suffix.lower() not in (".txt", ".tsv", ".tab"):
        return None
    lines = decoded(_single(place), encoding).split("\n")
    filled = [line for line in lines if line.strip()]
    if sum("\t" in line for line in filled) > len(filled) / 2:
        return "lines"
    heads = [line for before, line in zip(["", *lines], lines, strict=False) if not before.strip()]
    spoken = [head for head in heads if head.strip()]
    is_roles = spoken and sum(bool(_ROLE.fullmatch(head)) for head in spoken) > len(spoken) / 2
    return "roles" if is_roles else None


def _single(place: str) -> SourceFile:
    (file,) = source_files(place, ("",))[:1]
    return file


def _tabbed(place: str, encoding: str) -> _Lines:
    found = _Lines([], [], [], [])
    for file in source_files(place, (".txt", ".tsv", ".tab")):
        for number, line in enumerate(decoded(file, encoding).split("\n"), 1):
            if not line.strip():
                continue
            label, tab, text = line.partition("\t")
            if not tab or not label.strip() or not text.strip():
                raise DataError(
                    f"{file.shown}, line {number} is not LABEL, a tab and the text",
                    hint="correct the line or leave it out",
                )
            _append(found, text, label.strip(), file, number)
    return found


def _append(found: _Lines, text: str, label: str, file: SourceFile, line: int) -> None:
    found.texts.append(text)
    found.labels.append(label)
    found.where.append(f"{file.shown}, line {line}")
    found.files.append(file.name)


def _csv(place: str, columns: TextColumns, encoding: str) -> _Lines:
    found = _Lines([], [], [], [], [] if columns.client else None)
    named = [columns.text, columns.label, *([columns.client] if columns.client else [])]
    for file in source_files(place, (".csv", ".tsv")):
        table = read_csv(file, encoding, named)
        words = {name: table.words(name) for name in named}
        for name, cells in words.items():
            if "" in cells:
                raise DataError(
                    f"{table.where(cells.index(''))}: {name} is empty",
                    hint="fill it in or leave the record out",
                )
        found.texts.extend(words[columns.text])
        found.labels.extend(words[columns.label])
        found.where.extend(table.where(record) for record in range(len(table)))
        found.files.extend([file.name] * len(table))
        if found.clients is not None:
            found.clients.extend(words[columns.client])
    return found


def _files_of_classes(folder: Path) -> list[Path]:
    """Files that differ only in what is after the last dot, such as NAME.pos and NAME.neg."""
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix and not path.name.startswith(".")
    ]
    stems: dict[str, list[Path]] = {}
    for path in files:
        if path.suffix.lower() not in _NO_DATA:
            stems.setdefault(path.stem, []).append(path)
    return max(stems.values(), key=len, default=[])


def _class_files(place: str, encoding: str) -> _Lines:
    folder = Path(place)
    paths: Sequence[Path] = _files_of_classes(folder) if folder.is_dir() else ()
    if len(paths) < 2:
        raise DataError(
            f"{place} has no files that differ only after the last dot",
            hint="give a folder with one file for each class, such as reviews.pos and reviews.neg",
        )
    found = _Lines([], [], [], [])
    for path in paths:
        file = _single(str(path))
        for number, line in enumerate(decoded(file, encoding).split("\n"), 1):
            if line.strip():
                _append(found, line, path.suffix[1:], file, number)
    return found


def _roles(place: str, vocabulary: Vocabulary, length: int, encoding: str) -> SourceRecords:
    speeches: dict[str, list[str]] = {}
    for file in source_files(place, (".txt",)):
        _add_speeches(file, decoded(file, encoding), speeches)
    windows: list[list[int]] = []
    whose: list[str] = []
    for role, parts in speeches.items():
        tokens = vocabulary.tokens("\n".join(parts))
        cut = [tokens[start : start + length] for start in range(0, len(tokens), length)]
        windows.extend(cut)
        whose.extend([role] * len(cut))
    if not windows:
        raise DataError(
            f"{place} has roles that say nothing",
            hint="give at least one line of speech",
        )
    ids = np.array(whose)
    return SourceRecords(
        features=padded(windows, length),
        tokens=vocabulary.size,
        labels=None,
        natural_ids=ids,
        files=ids,
        done=(
            vocabulary.done,
            f"what each of {len(speeches):,} roles says is joined and cut into {length} tokens, "
            "without overlap; the last is padded",
        ),
    )


def _add_speeches(file: SourceFile, text: str, speeches: dict[str, list[str]]) -> None:
    is_new, role = True, ""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            is_new = True
        elif is_new:
            if not _ROLE.fullmatch(line.strip()):
                raise DataError(
                    f"{file.shown}, line {number}: a block does not begin with ROLE: on a line of "
                    "its own",
                    hint="add that line, or join the block to the one before",
                )
            is_new, role = False, line.strip()[:-1]
            speeches.setdefault(role, [])
        else:
            speeches[role].append(line)
