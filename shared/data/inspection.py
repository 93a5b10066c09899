"""What is in a folder or file, what is wrong with it, and the settings that read it.

Everything in here is exact and about private records: it is for their owner, on his machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calyx.shared.config.load import build
from calyx.shared.config.schema import DataConfig
from calyx.shared.data.guess import label_of, settings_of, source_of, text_column
from calyx.shared.data.load import read_source
from calyx.shared.data.sources.csv_file import read_csv
from calyx.shared.data.sources.files import source_files
from calyx.shared.data.sources.source_records import Reading, SourceRecords
from calyx.shared.data.sources.table import SUFFIXES, read_columns, read_table
from calyx.shared.data.sources.text import TextColumns, layout_of, read_text
from calyx.shared.data.sources.vocabulary import Characters, HashedWords
from calyx.shared.errors import DataError

# A label that is a number in more records than this, mostly different ones, is a quantity.
_MOST_NUMBERS = 20
_WORDS, _TOKENS = 8192, 64
# Beyond, always saying the most frequent class looks like having learned something.
_UNBALANCED = 0.8


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        place: the file or folder.
        kind: the source, or ``text``.
        label_kind: ``class``, ``several``, ``real``, or ``itself`` for text that predicts itself.
        records: how many there are.
        test_records: of them, those of the source's own test set; 0 if it has none.
        shape: of one record, as it is stored.
        low, high: smallest and largest value after scaling; tokens for text.
        classes: records of each class, in the order of the classes.
        clients: records of each client; empty if the source does not say.
        lacking: clients that have no record of some class.
        duplicates: records that are the same as an earlier one.
        done: what was done to the values.
        problems: what is wrong, or may be.
        settings: of ``[data]``, as ``key=value``: those that were given or guessed.
    """

    place: str
    kind: str
    label_kind: str
    records: int
    test_records: int
    shape: tuple[int, ...]
    low: float
    high: float
    classes: Mapping[str, int] = field(repr=False)
    clients: Mapping[str, int] = field(repr=False)
    lacking: int
    duplicates: int
    done: tuple[str, ...]
    problems: tuple[str, ...]
    settings: Mapping[str, Any]

    @property
    def majority(self) -> float:
        """Share of the most frequent class; 0 without classes."""
        total = sum(self.classes.values())
        return max(self.classes.values(), default=0) / total if total else 0.0

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "path": self.place,
            "kind": self.kind,
            "label": self.label_kind,
            "records": self.records,
            "test_records": self.test_records,
            "shape": list(self.shape),
            "low": self.low,
            "high": self.high,
            "classes": dict(self.classes),
            "majority": self.majority,
            "clients": dict(self.clients),
            "clients_lacking_a_class": self.lacking,
            "duplicates": self.duplicates,
            "done": list(self.done),
            "problems": list(self.problems),
            "settings": {f"data.{key}": value for key, value in self.settings.items()},
        }


def inspect(place: str, given: Mapping[str, Any]) -> Inspection:
    """Look at all records of a file or folder.

    Args:
        place: the file or folder.
        given: settings of ``[data]`` that are known; the others are guessed.

    Raises:
        DataError: it cannot be read, also with what was guessed; the place is named.
        ConfigError: a setting that there is not.
    """
    place = str(Path(place).expanduser())
    kind = str(given.get("source") or source_of(place))
    if kind == "text":
        if unknown := [key for key in given if key not in ("source", "encoding")]:
            raise DataError(f"data.{unknown[0]} is no setting of text", hint="leave it out")
        encoding = str(given.get("encoding", "utf-8"))
        found, how = _read_text(place, encoding)
        return _inspected(place, kind, found, {"source": kind, **given, **how})
    guessed = settings_of(kind, place, given)
    settings = {"source": kind, **given, **guessed}
    config = build({"data": {**settings, "directory": place}}).data
    if kind == "table" and _is_quantity(config):
        return _inspected(place, kind, read_table(config, "real"), settings)
    if kind == "table":
        return _inspected(place, kind, read_table(config), settings)
    reading = read_source(config)
    return _inspected(place, kind, _joined(reading), settings)


def _joined(reading: Reading) -> SourceRecords:
    """Training and test records as one."""
    parts = [reading.train, *([reading.test] if reading.test is not None else [])]
    sizes = [len(part) for part in parts]
    ids = [part.natural_ids for part in parts if part.natural_ids is not None]
    whose: NDArray[Any] | None = None
    if ids:
        # Test records of an archive have no client: an empty name, left out below.
        whose = np.concatenate([np.asarray(i).astype(str) for i in ids])
        whose = np.concatenate([whose, np.full(sum(sizes) - len(whose), "")])
    return SourceRecords(
        features=np.concatenate([part.features for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        class_names=reading.class_names or tuple(map(str, range(reading.train.classes))),
        natural_ids=whose,
        is_test=np.repeat([number > 0 for number in range(len(parts))], sizes),
        done=reading.done,
        warnings=reading.warnings,
    )


def _is_quantity(config: DataConfig) -> bool:
    """Whether the label is a number that hardly repeats."""
    if config.classes or "," in config.label:
        return False
    labels = [
        word
        for file in source_files(config.directory, SUFFIXES)
        for word in read_columns(file, config, [config.label]).words(config.label)
    ]
    try:
        numbers = {float(word) for word in labels}
    except ValueError:
        return False
    is_whole = all(number == int(number) for number in numbers if np.isfinite(number))
    return len(numbers) > _MOST_NUMBERS and (not is_whole or 10 * len(numbers) > len(labels))


def _read_text(place: str, encoding: str) -> tuple[SourceRecords, dict[str, Any]]:
    """The records, and the settings that read them so."""
    layout = layout_of(place, encoding)
    if layout is not None:
        is_roles = layout == "roles"
        vocabulary = Characters() if is_roles else HashedWords(_WORDS)
        found = read_text(place, layout, vocabulary, _TOKENS, encoding=encoding)
        how: dict[str, Any] = {"layout": layout, "length": _TOKENS}
        return found, {**how, **({"partition": "natural"} if is_roles else {})}
    columns = read_csv(source_files(place, (".csv", ".tsv"))[0], encoding)
    label, words = label_of(columns), text_column(columns)
    if label is None or words is None:
        raise DataError(
            f"{place}: there is no column of sentences beside a label",
            hint="name them text and label",
        )
    names = TextColumns(words, label)
    found = read_text(place, "csv", HashedWords(_WORDS), _TOKENS, columns=names, encoding=encoding)
    return found, {"layout": "csv", "text": words, "label": label, "length": _TOKENS}


def _inspected(
    place: str, kind: str, found: SourceRecords, settings: Mapping[str, Any]
) -> Inspection:
    label_kind = _label_kind(found)
    classes: dict[str, int] = {}
    if label_kind == "class" and found.labels is not None:
        counts = np.bincount(found.labels.astype(np.int64), minlength=len(found.class_names))
        classes = {name: int(n) for name, n in zip(found.class_names, counts, strict=True)}
    elif label_kind == "several" and found.labels is not None:
        counts = found.labels.sum(axis=0)
        classes = {name: int(n) for name, n in zip(found.class_names, counts, strict=True)}
    clients: Counter[str] = Counter()
    if found.natural_ids is not None:
        clients.update(str(name) for name in found.natural_ids if str(name))
    lacking = _lacking(found, classes) if label_kind == "class" else []
    duplicates = _duplicates(found)
    problems = [*found.warnings, *_problems(found, kind, classes, clients, lacking, duplicates)]
    return Inspection(
        place=place,
        kind=kind,
        label_kind=label_kind,
        records=len(found),
        test_records=0 if found.is_test is None else int(found.is_test.sum()),
        shape=found.features.shape[1:],
        low=float(found.features.min()),
        high=float(found.features.max()),
        classes=classes,
        clients=dict(sorted(clients.items())),
        lacking=len(lacking),
        duplicates=duplicates,
        done=found.done,
        problems=tuple(problems),
        settings=settings,
    )


def _label_kind(found: SourceRecords) -> str:
    if found.labels is None:
        return "itself"
    if found.labels.dtype == np.int64:
        return "class"
    return "several" if found.labels.ndim == 2 else "real"


def _lacking(found: SourceRecords, classes: Mapping[str, int]) -> list[str]:
    """Clients without a record of some class that others have, each with the first it lacks."""
    if found.natural_ids is None or found.labels is None:
        return []
    there = {number for number, count in enumerate(classes.values()) if count}
    lacking = []
    for client in np.unique(found.natural_ids):
        if not str(client):
            continue
        own = set(found.labels[found.natural_ids == client].tolist())
        if missing := there - own:
            lacking.append(f"{client} lacks {found.class_names[min(missing)]}")
    return lacking


def _duplicates(found: SourceRecords) -> int:
    labels: list[bytes] = [b""] * len(found)
    if found.labels is not None:
        labels = [label.tobytes() for label in found.labels]
    seen = {
        hash((record.tobytes(), label))
        for record, label in zip(found.features, labels, strict=True)
    }
    return len(found) - len(seen)


def _problems(
    found: SourceRecords,
    kind: str,
    classes: Mapping[str, int],
    clients: Mapping[str, int],
    lacking: list[str],
    duplicates: int,
) -> list[str]:
    said = []
    if empty := [name for name, number in classes.items() if not number]:
        said.append(f"{len(empty)} classes have no records, such as {empty[0]}")
    largest, total = max(classes.values(), default=0), sum(classes.values())
    if _label_kind(found) == "class" and total and largest > _UNBALANCED * total:
        name = max(classes, key=lambda key: classes[key])
        said.append(
            f"{largest / total:.0%} of the records are of class {name}: an accuracy of that much "
            "is what always saying so gives"
        )
    if duplicates:
        said.append(
            f"copies of other records: {duplicates:,}; a person who is in it twice has half the "
            "privacy"
        )
    if lacking:
        said.append(
            f"{len(lacking):,} of {len(clients):,} clients have no record of some class "
            f"({lacking[0]}): a device must be told all classes with data.classes"
        )
    if clients and len(found) > len(clients):
        said.append(
            f"a client has {len(found) / len(clients):.0f} records on average: with privacy.unit = "
            "record, epsilon is for one of them; privacy.unit = client protects all that a client "
            "has"
        )
    constant = found.features.reshape(len(found), -1)
    if kind == "table" and (still := int((constant == constant[0]).all(axis=0).sum())):
        said.append(f"{still} columns of features have one value only: they say nothing")
    return said
