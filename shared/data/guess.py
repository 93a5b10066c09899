"""What a folder or file seems to hold, and the settings that read it.

A guess is a proposal for the owner of the records, to be looked at before it is used. It names
columns and patterns, which say how records are stored; never bounds, lengths or lists of words,
which would tell what they hold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from calyx.shared.config.schema import DataConfig
from calyx.shared.data.sources import audio, images, sensors, table, text
from calyx.shared.data.sources.class_labels import as_setting
from calyx.shared.data.sources.columns import Columns, listed
from calyx.shared.data.sources.files import SourceFile, is_tar, source_files
from calyx.shared.data.sources.npz import array_names
from calyx.shared.data.sources.wav import read_wav
from calyx.shared.errors import DataError

Settings = dict[str, Any]
_LABELS = (
    "label",
    "class",
    "target",
    "y",
    "diagnosis",
    "outcome",
    "species",
    "category",
    "activity",
)
_IDS = ("id", "record_id", "row_id", "uuid", "index")
_CLIENTS = re.compile(r"(client|user|subject|patient|person|speaker|hospital|site|device)(_?id)?")
_TIMES = re.compile(
    r"(time|timestamp|date|datetime|epoch|t|ms|index|.*_time|time_.*|.*timestamp.*)"
)
_NOT_RECORDS = re.compile(r"(x|y)(_train|_test)?|classes|(train|val|test)_(images|labels)")
_LOOKED_AT = 50


def source_of(place: str) -> str:
    """The source that reads a file or folder, ``text`` where none of `DataConfig` does.

    Raises:
        DataError: there is no such place, or nothing in it is read.
    """
    path = Path(place)
    if not path.exists():
        raise DataError(f"{place}: no such file or folder", hint="give the one with the records")
    if path.suffix == ".npz" or (path.is_dir() and any(path.glob("*.npz"))):
        return "npz"
    if path.is_dir() and any(path.glob("*idx3-ubyte*")):
        return "idx"
    found = _suffixes(path)
    if found & set(images.SUFFIXES):
        return "images"
    if found & set(audio.SUFFIXES):
        return "audio"
    if ".parquet" in found:
        return "table"
    if found & {".csv", ".tsv"}:
        return _of_tables(place)
    if not is_tar(path) and text.layout_of(place) is not None:
        return "text"
    raise DataError(
        f"{place} holds nothing that can be read",
        hint=(
            "give CSV, Parquet, PNG, JPEG, WAV, IDX, NPZ, or text as LABEL<TAB>TEXT, as one file "
            "for each class, or as ROLE: blocks"
        ),
    )


def _suffixes(path: Path) -> set[str]:
    suffixes = (*images.SUFFIXES, *audio.SUFFIXES, ".parquet", ".csv", ".tsv")
    try:
        files = source_files(str(path), suffixes)
    except DataError:
        if is_tar(path):
            raise
        return set()
    return {Path(file.name).suffix.lower() for file in files}


def _of_tables(place: str) -> str:
    files = _alike(source_files(place, table.SUFFIXES))
    columns = table.read_columns(files[0], DataConfig())
    label = label_of(columns)
    if label is None:
        return "table"
    if text_column(columns) is not None:
        return "text"
    words = columns.words(label)
    changes = sum(a != b for a, b in pairwise(words))
    # In a log of sensors a label holds for many rows.
    is_log = len(files) > 1 and len(set(words)) < 50 and changes * 10 < len(words)
    return "sensors" if is_log else "table"


def _alike(files: Sequence[SourceFile]) -> list[SourceFile]:
    """Those that begin with the same line as most: the others describe them."""
    heads = [file.content().split(b"\n", 1)[0].strip() for file in files]
    usual, _ = Counter(heads).most_common(1)[0]
    return [file for file, head in zip(files, heads, strict=True) if head == usual]


def label_of(columns: Columns) -> str | None:
    """The column that is probably the label: by its name, or else the last with few values."""
    names = {name.lower(): name for name in reversed(list(columns.columns))}
    by_name = next((names[name] for name in _LABELS if name in names), None)
    if by_name is not None:
        return by_name
    last = list(columns.columns)[-1]
    return last if 2 <= len(set(columns.words(last))) <= 50 else None


def text_column(columns: Columns) -> str | None:
    """The column with sentences, if there is one."""
    for name, column in columns.columns.items():
        if isinstance(column, list) and len(set(column)) * 2 > len(column):
            lengths = [len(cell.split()) for cell in column[:1000]]
            if sum(lengths) >= 4 * len(lengths):
                return name
    return None


def settings_of(source: str, place: str, given: Mapping[str, Any]) -> Settings:
    """Settings of ``[data]`` for a source, without those that are given.

    Raises:
        DataError: a file cannot be read.
    """
    guess: Mapping[str, Callable[[str, Mapping[str, Any]], Settings]] = {
        "npz": _npz,
        "table": _table,
        "images": _images,
        "audio": _audio,
        "sensors": _sensors,
    }
    made = guess[source](place, given) if source in guess else {}
    return {key: value for key, value in made.items() if key not in given}


def _npz(place: str, given: Mapping[str, Any]) -> Settings:
    others = [name for name in array_names(place) if not _NOT_RECORDS.fullmatch(name)]
    whose = next((name for name in others if _CLIENTS.fullmatch(name.lower())), None)
    return {} if whose is None else {"natural_id": whose, "partition": "natural"}


def _table(place: str, given: Mapping[str, Any]) -> Settings:
    files = source_files(place, table.SUFFIXES)
    encoding = str(given.get("encoding", "utf-8"))
    every = [
        table.read_columns(file, DataConfig.model_validate({"encoding": encoding}))
        for file in files
    ]
    columns = every[0]
    made: Settings = {}
    label = str(given.get("label") or label_of(columns) or "")
    if not label:
        raise DataError(
            f"{columns.shown}: it is not clear which column is the label",
            hint=f"set data.label to one of {listed(list(columns.columns))}",
        )
    made["label"] = as_setting([label])
    for name in columns.columns:
        words = columns.words(name)
        is_unique = len(set(words)) == len(words)
        if name.lower() in _IDS and is_unique and name != label:
            made["record_id"] = name
        elif _CLIENTS.fullmatch(name.lower()) and not is_unique and name != label:
            made |= {"natural_id": name, "partition": "natural"}
    others = {label, given.get("record_id"), made.get("record_id")}
    if any(
        _has_missing(part, name) for part in every for name in part.columns if name not in others
    ):
        made["missing"] = "indicator"
    return made


def _has_missing(columns: Columns, name: str) -> bool:
    column = columns.columns[name]
    return "" in column if isinstance(column, list) else bool(np.isnan(column).any())


def _images(place: str, given: Mapping[str, Any]) -> Settings:
    from calyx.shared.data.sources.images import size_and_mode

    files = source_files(place, images.SUFFIXES)
    found = [size_and_mode(file) for file in files]
    sizes, colours = Counter(size for size, _ in found), {is_grey for _, is_grey in found}
    made: Settings = {}
    if len(sizes) > 1:
        # A format of files, and no more telling than the most frequent of them.
        (height, width), _ = sizes.most_common(1)[0]
        made["image_size"] = f"{height}x{width}"
    if len(colours) > 1:
        made["colour"] = "rgb"
    return made


def _audio(place: str, given: Mapping[str, Any]) -> Settings:
    files = source_files(place, audio.SUFFIXES)
    rates = Counter(read_wav(file).rate for file in files[:_LOOKED_AT])
    made: Settings = {"sample_rate": rates.most_common(1)[0][0]}
    if (parts := _parts_of_names(files)) and not _has_class_folders(files):
        fields = {2: "{label}_{index}", 3: "{label}_{client}_{index}"}.get(parts)
        if fields is not None:
            made["name_pattern"] = f"{fields}.wav"
    if "{client}" in str(given.get("name_pattern", made.get("name_pattern", ""))):
        made["partition"] = "natural"
    return made


def _has_class_folders(files: Sequence[SourceFile]) -> bool:
    return len({file.name.rpartition("/")[0] for file in files}) > 1


def _parts_of_names(files: Sequence[SourceFile]) -> int:
    """How many parts each name has between underscores; 0 if they differ."""
    counts = {Path(file.name).stem.count("_") + 1 for file in files}
    return counts.pop() if len(counts) == 1 else 0


def _sensors(place: str, given: Mapping[str, Any]) -> Settings:
    recordings = _alike(source_files(place, sensors.SUFFIXES))
    columns = table.read_columns(recordings[0], DataConfig())
    label = str(given.get("label") or label_of(columns) or "")
    if not label:
        raise DataError(
            f"{columns.shown}: it is not clear which column is the label",
            hint=f"set data.label to one of {listed(list(columns.columns))}",
        )
    made: Settings = {"label": as_setting([label])}
    learned = [name for name in columns.columns if name != label]
    values = [name for name in learned if not _TIMES.fullmatch(name.lower())]
    if values and values != learned:
        made["columns"] = as_setting(values)
    if pattern := _subject_pattern([file.name for file in recordings]):
        made["name_pattern"] = pattern
    if "{client}" in str(given.get("name_pattern", pattern)):
        made["partition"] = "natural"
    return made


def _subject_pattern(names: Sequence[str]) -> str:
    """``{client}/*_log.csv`` where the subject is the folder, else from the name's first part."""
    bases = [name.rpartition("/")[2] for name in names]
    same = 0
    while same < min(map(len, bases)) and len({base[-1 - same] for base in bases}) == 1:
        same += 1
    common = bases[0][len(bases[0]) - same :]
    start = re.search(r"[_.-]", common)
    ending = common[start.start() :] if start else ".csv"
    folders = {name.rpartition("/")[0] for name in names}
    if len(folders) > 1 and all(folder for folder in folders):
        return f"{{client}}/*{ending}"
    if all(re.fullmatch(r"[^_/]+_.+", base) for base in bases):
        return f"{{client}}_*{ending}"
    return ""
