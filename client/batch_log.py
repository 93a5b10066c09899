"""Which records entered which batch: written by simulated clients only, for the audit.

Amplification by sampling is only as true as the sampling. The log lets an auditor compare what was
drawn with what was assumed. On a real device it would be a list of who was used when, so a real
device refuses to keep one (`client.node`).

One JSON line a batch: round, step, the number of records, and the batch as the hex of its packed
bits. A round that is repeated after a crash stands there twice; the later one counts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.regular_file import read_regular


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

    def add(self, indices: NDArray[np.int64], records: int) -> None:
        """Note one batch of a client that holds so many records."""
        mask = np.zeros(records, dtype=np.bool_)
        mask[indices] = True
        line = {
            "round": self.round,
            "step": self._step,
            "records": records,
            "batch": np.packbits(mask).tobytes().hex(),
        }
        with self.path.open("a", encoding="ascii") as file:
            file.write(json.dumps(line) + "\n")
        self._step += 1


def read_batches(path: Path, below: Path) -> NDArray[np.bool_]:
    """All batches of one client, bool (batches, records), in order of round and step.

    Args:
        path: the log.
        below: the run folder, which may be somebody else's.

    Raises:
        ValueError: the file is not such a log.
        OSError: it cannot be read, or is no regular file.
    """
    batches: dict[tuple[int, int], NDArray[np.bool_]] = {}
    for text in read_regular(path, below).decode("ascii").splitlines():
        try:
            line = json.loads(text)
        except RecursionError as error:
            raise ValueError(f"{path.name} holds what is no batch: {error}") from None
        packed = np.frombuffer(bytes.fromhex(line["batch"]), dtype=np.uint8)
        if len(packed) != -(-int(line["records"]) // 8):
            raise ValueError(f"{path.name} holds a batch of another size than it says")
        mask = np.unpackbits(packed, count=int(line["records"])).astype(np.bool_)
        batches[(int(line["round"]), int(line["step"]))] = mask
    if len({len(mask) for mask in batches.values()}) > 1:
        raise ValueError(f"{path.name} holds batches of different data")
    return np.array([batches[key] for key in sorted(batches)], dtype=np.bool_)
