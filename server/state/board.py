"""TensorBoard's event files, written in the thread that reports the round.

PyTorch's ``SummaryWriter`` hands events to a thread of its own, which opens the file again, by its
path, whenever it writes. If the run folder is removed, as it is for an audit's repeated runs, that
could fail in a thread that nothing waits for. A few scalars a round need no thread: here the file
is opened once, and what is written is written when the call returns.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

_NUMBERS = count()


class Board:
    """One event file; made by `board_in`.

    Args:
        directory: of the event files; made if it does not exist.
        first_round: what files from before a restart say of this or later rounds does not count.
    """

    def __init__(self, directory: Path, first_round: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        directory.mkdir(parents=True, exist_ok=True)
        # The form of name that TensorBoard looks for. It reads files in the order of their names,
        # so the number keeps two files of one second apart, and in order.
        place = f"{socket.gethostname()}.{os.getpid()}.{next(_NUMBERS):06d}"
        name = f"{int(time.time()):010d}.{place}"
        self._file = (directory / f"events.out.tfevents.{name}").open("wb")
        self._records = RecordWriter(self._file)
        self._event: Any = Event
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        begun = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=first_round, session_log=begun))

    def add(self, scalars: Mapping[str, float], server_round: int) -> None:
        """Write figures of one round, and let readers see them at once."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        summary = Summary(value=values)
        self._write(self._event(wall_time=time.time(), step=server_round, summary=summary))

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    def _write(self, event: Any) -> None:
        self._records.write(event.SerializeToString())
        self._file.flush()


def board_in(directory: Path, first_round: int) -> Board | None:
    """A board, None without TensorBoard."""
    return None if find_spec("tensorboard") is None else Board(directory, first_round)
