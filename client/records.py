"""The device's own records, read as its owner said: from files, or by a function of his own.

Where they are, how they are read and what is learned from them is decided on the device
(docs/adr/0031). A server only says in which of two shapes a record is seen (image or sequence), and
what else it says is held against the owner's word before a record is touched.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calyx.shared.config import Config
from calyx.shared.config.load import build
from calyx.shared.config.reading_keys import differences, reading_keys
from calyx.shared.config.schema import DataConfig, TaskConfig, View
from calyx.shared.data import Dataset
from calyx.shared.data.load import read_folder
from calyx.shared.data.view import as_view
from calyx.shared.errors import ConfigError, DataError, Fault, PolicyViolation

if TYPE_CHECKING:
    from calyx.shared.data.sources.source_records import Reading

CLASSIFICATION = TaskConfig().kind
_SHOWN = 60


@dataclass(frozen=True)
class OwnRecords:
    """All records of this device, for training; hashable, so that they are read once.

    Attributes:
        source: ``npz``, ``idx``, ``table``, ``images``, ``audio``, ``sensors``, ``text``, ``task``
            or ``python``.
        place: folder, file or archive; for ``python`` ``module:function``. The function takes
            nothing and returns a `Dataset`, or features (n, ...), labels (n,) and the number of
            classes.
        settings: keys of ``[data]`` by which they are read, as JSON; empty: all have their
            defaults.
        task: what is learned from them, as ``task.kind``.
    """

    source: str
    place: str
    settings: str = ""
    task: str = CLASSIFICATION

    @property
    def config(self) -> DataConfig:
        """How they are read; only for files.

        Raises:
            ConfigError: a key that this source does not read, or a value that is not allowed.
        """
        settings = self._settings()
        if unread := [key for key in settings if key not in reading_keys(self.source)]:
            allowed = ", ".join(reading_keys(self.source)) or "nothing"
            raise ConfigError(
                "how the records are read cannot be used",
                [
                    Fault(
                        f"data.{key}",
                        str(settings[key]),
                        f"source {self.source} reads {allowed}",
                        "leave it out",
                    )
                    for key in unread
                ],
            )
        data = {**settings, "source": self.source, "directory": self.place}
        # The whole, so that the rules between the sections hold.
        return build({"data": data, "task": {"kind": self.task}}).data

    def check(self, run: Config) -> None:
        """Let a run pass only if it means the records that the owner agreed to; none is read.

        Raises:
            PolicyViolation: naming each key, what was requested and what the owner said.
        """
        found = [] if self.task == run.task.kind else [("task.kind", run.task.kind, self.task)]
        if self.source != "python":
            found += differences(self.source, run.data, self.config)
        if found:
            faults = [
                f"{key} = {_shown(asked)} was requested, this device has {_shown(own)}"
                for key, asked, own in found
            ]
            raise PolicyViolation(
                "; ".join(["the owner of this device has its records read otherwise", *faults]),
                hint="change the run, or ask the owner to enrol these records for it",
            )

    def read(self) -> Reading:
        """The records as they are stored.

        Raises:
            DataError: there are none, or they do not fit.
        """
        return _read(self, self._stamp())

    def viewed(self, view: View) -> Dataset:
        """The records as a run sees them.

        Raises:
            DataError: as `read`, or they have no such shape.
        """
        return _viewed(self, view, self._stamp())

    def charged(self) -> Dataset:
        """The records as a ledger and the registry know them, however a run sees them.

        As sequences, whatever the file was, where a record has such a shape.
        """
        try:
            return self.viewed("sequence")
        except DataError:
            return self.read().train

    def files(self) -> Iterator[bytes]:
        """SHA-256 of each file that records are from, however they are read from it."""
        from calyx.shared.data.sources.files import source_files

        named = self.read().files
        if named is None:
            return
        used = set(named.tolist())
        for file in source_files(self.place, ("",)):
            if file.name in used:
                yield hashlib.sha256(file.content()).digest()

    def _settings(self) -> dict[str, Any]:
        try:
            settings = json.loads(self.settings or "{}")
            if not isinstance(settings, dict):
                raise ValueError("it is no table")
        except ValueError as error:
            raise DataError(
                f"the settings of this device's records cannot be read: {error}",
                hint="enrol it again",
            ) from None
        return settings

    def _stamp(self) -> float:
        """Changes when the files do, so that they are read again."""
        place = Path(self.place)
        if self.source == "python" or not place.exists():
            return 0.0
        return max(_changed(place))


def _changed(place: Path) -> Iterator[float]:
    for path in (place, *place.rglob("*")):
        # A file that has just been removed has changed its folder.
        if path.exists():
            yield path.stat().st_mtime


@lru_cache(maxsize=1)
def _read(own: OwnRecords, stamp: float) -> Reading:
    from calyx.shared.data.sources.source_records import Reading

    if own.source == "python":
        return Reading(_from_function(own.place))
    return read_folder(own.config, TaskConfig(kind=own.task))


@lru_cache(maxsize=2)
def _viewed(own: OwnRecords, view: View, stamp: float) -> Dataset:
    return as_view(_read(own, stamp).train, view)


def _from_function(place: str) -> Dataset:
    module, _, function = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)()
    except DataError:
        raise
    except Exception as error:  # the owner's own code may fail with anything
        raise DataError(
            f"data.place = {place}: {type(error).__name__}: {error}",
            hint=(
                "name a function without arguments in a module that can be imported here "
                "(python_path in device.toml adds a folder)"
            ),
        ) from None
    if isinstance(found, Dataset):
        return found
    try:
        features, labels, classes = found
        return Dataset(
            np.asarray(features, dtype=np.float32), np.asarray(labels, dtype=np.int64), int(classes)
        )
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{place} returned something other than features, labels and the number of classes: "
            f"{error}",
            hint="return these three from the function",
        ) from None


def _shown(value: Any) -> str:
    text = str(value)
    return '""' if not text else text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def make_importable(folder: str) -> None:
    """Let modules in `folder` be found, after everything that is installed."""
    if folder and folder not in sys.path:
        sys.path.append(folder)
