"""Which records entered which batch: written by simulated clients only, for the audit.

Amplification by sampling holds only as far as the sampling does. The log lets an auditor compare
what was drawn with what was assumed. On a real device it would list which record was used when, so
a real device refuses to keep one (`calyx.client.node`).

A record counts as used when its features and its label are in what the model is given, regardless
of what was drawn before: a draw that is logged and not used would look as good as one that is.

One JSON line a batch: round, step, the number of records, the batch as the hex of its packed bits,
and how many of its rows are *out of place*: not a record of this client, or one that is already in
the batch. A round that is repeated after a crash is in the log twice; the later one counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calyx.shared.data import Dataset
from calyx.shared.host.regular_file import read_regular
from calyx.shared.models.inputs import Inputs


class BatchSeen:
    """The records of one batch, as they were given to the model.

    Args:
        data: all records of the client.
    """

    def __init__(self, data: Dataset) -> None:
        self._columns = [*data.columns.values(), data.labels]
        self._places: dict[bytes, list[int]] | None = None
        self.mask = np.zeros(len(data), dtype=np.bool_)
        self.out_of_place = 0

    def entered(self, inputs: Inputs, labels: torch.Tensor, drawn: NDArray[np.int64]) -> None:
        """Note rows that the model was given.

        Args:
            inputs, labels: the rows, as tensors of the records' own types.
            drawn: which records they are said to be; a row that is another record counts as that.
        """
        given = inputs if isinstance(inputs, dict) else {"": inputs}
        columns = [x.cpu().numpy() for x in (*given.values(), labels)]
        own = self._columns
        rows = len(labels)
        places = np.full(rows, -1, dtype=np.int64)
        told = drawn[:rows]
        same = np.ones(len(told), dtype=np.bool_)
        for mine, found in zip(own, columns, strict=True):
            equal = mine[told] == found[: len(told)]
            same &= equal.all(axis=tuple(range(1, equal.ndim)))
        places[: len(told)][same] = told[same]
        for number in range(rows):
            place = places[number]
            if place < 0:
                place = self._place([column[number] for column in columns])
            if place < 0 or self.mask[place]:
                self.out_of_place += 1
            else:
                self.mask[place] = True

    def _place(self, row: list[NDArray[Any]]) -> int:
        """A record with this content, if possible one that is not in the batch yet; -1: none."""
        if self._places is None:
            self._places = {}
            for place, own in enumerate(zip(*self._columns, strict=True)):
                self._places.setdefault(_content(own), []).append(place)
        same = self._places.get(_content(row), [])
        return next((place for place in same if not self.mask[place]), next(iter(same), -1))


def _content(row: Iterable[NDArray[Any]]) -> bytes:
    return b"/".join(np.ascontiguousarray(column).tobytes() for column in row)


@dataclass
class BatchLog:
    """The log of one client in one round.

    Attributes:
        path: file of this client.
        round: the round that is being trained.
    """

    path: Path
    round: int
    _step: int = field(default=0, repr=False)

    def add(self, seen: BatchSeen) -> None:
        """Note one batch."""
        line = {
            "round": self.round,
            "step": self._step,
            "records": len(seen.mask),
            "batch": np.packbits(seen.mask).tobytes().hex(),
            "out_of_place": seen.out_of_place,
        }
        with self.path.open("a", encoding="ascii") as file:
            file.write(json.dumps(line) + "\n")
        self._step += 1


@dataclass(frozen=True)
class LoggedBatches:
    """All batches of one client, in order of round and step.

    Attributes:
        used: which records were in which batch, bool (batches, records).
        out_of_place: rows that were not a record of the client, or were one for the second time.
    """

    used: NDArray[np.bool_]
    out_of_place: int


def read_batches(path: Path, below: Path) -> LoggedBatches:
    """Read a log.

    Args:
        path: the log.
        below: the run folder, which may be someone else's.

    Raises:
        ValueError: the file is not such a log.
        OSError: it cannot be read, or is not a regular file.
    """
    batches: dict[tuple[int, int], tuple[NDArray[np.bool_], int]] = {}
    for text in read_regular(path, below).decode("ascii").splitlines():
        try:
            line = json.loads(text)
        except RecursionError as error:
            raise ValueError(f"{path.name} holds what is no batch: {error}") from None
        packed = np.frombuffer(bytes.fromhex(line["batch"]), dtype=np.uint8)
        if len(packed) != -(-int(line["records"]) // 8):
            raise ValueError(f"{path.name} holds a batch of another size than it says")
        mask = np.unpackbits(packed, count=int(line["records"])).astype(np.bool_)
        batches[(int(line["round"]), int(line["step"]))] = mask, int(line["out_of_place"])
    if len({len(mask) for mask, _ in batches.values()}) > 1:
        raise ValueError(f"{path.name} holds batches of different data")
    used = np.array([batches[key][0] for key in sorted(batches)], dtype=np.bool_)
    return LoggedBatches(used, sum(wrong for _, wrong in batches.values()))
