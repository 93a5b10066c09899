"""What a run reports while it is under way: ``metrics.jsonl`` and TensorBoard events.

The journal is the only channel to those that watch (terminal, scripts): they read the file, so it
works the same whether the server runs in this process, in Ray or on another machine. TensorBoard's
files are a second view of it (`calyx.server.state.board`), left out where TensorBoard is not
installed.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calyx.server.state.board import Board, board_in
from calyx.shared.errors import RunError
from calyx.shared.host.atomic_write import write_atomically
from calyx.shared.host.regular_file import read_regular
from calyx.shared.metric_facts import ACCURACY, MetricFacts

Event = dict[str, Any]
FILE_NAME = "metrics.jsonl"
_OF_CLIENTS = "client-"


def to_line(event: Event) -> str:
    """One JSON line; infinite and undefined numbers become null, which JSON can hold."""
    return json.dumps(_finite(event), separators=(",", ":")) + "\n"


def append(run_dir: Path, event: Event) -> None:
    """Add an event to the journal of a run whose `Journal` is closed."""
    with (run_dir / FILE_NAME).open("a", encoding="utf-8") as file:
        file.write(to_line(event))


@dataclass(frozen=True)
class RunEvents:
    """What a run has told so far.

    Attributes:
        all: its events, in order.
    """

    all: tuple[Event, ...]

    @classmethod
    def read(cls, run_dir: Path) -> RunEvents:
        """The journal of a run, which may be going on or may have been killed; empty without one.

        The folder may come from elsewhere: links are not followed.

        Raises:
            RunError: the journal cannot be read, or a line of it is damaged.
        """
        path = run_dir / FILE_NAME
        try:
            content = read_regular(path, run_dir)
        except FileNotFoundError:
            return cls(())
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error}") from None
        return cls(tuple(_events(_whole_lines(content), path)))

    def of(self, kind: str) -> list[Event]:
        """Those of one kind."""
        return [event for event in self.all if event["event"] == kind]

    @property
    def start(self) -> Event:
        """The ``start`` event; empty if the run has not begun."""
        return next(iter(self.of("start")), {})

    @property
    def rounds(self) -> list[Event]:
        """The ``round`` events, those before a restart included."""
        return self.of("round")

    @property
    def judged_by(self) -> tuple[MetricFacts, ...]:
        """The metrics of the task, the headline first.

        Raises:
            RunError: the journal tells something else of them.
        """
        return judged_by(self.start)

    @property
    def headline(self) -> MetricFacts:
        """The metric by which the run is judged first."""
        return self.judged_by[0]

    def metrics(self, number: int) -> dict[str, float | None]:
        """All metrics of a round, by its place in `rounds`; the headline first."""
        return metrics_of(self.rounds[number])

    def headlines(self) -> list[float | None]:
        """The value of `headline` after each round."""
        name = self.headline.name
        return [metrics_of(event).get(name) for event in self.rounds]

    @property
    def end(self) -> Event:
        """The ``end`` event of a simulation; empty if it has not ended."""
        return next(iter(self.of("end")), {})


def judged_by(start: Event) -> tuple[MetricFacts, ...]:
    """The metrics that a ``start`` event tells of, the headline first.

    Raises:
        RunError: it tells something else of them.
    """
    told = start.get("metrics", [ACCURACY.as_dict()])
    try:
        found = tuple(map(MetricFacts.read, told))
    except (TypeError, ValueError) as error:
        raise RunError(f"the journal's start event tells of metrics wrongly: {error}") from None
    if not found:
        raise RunError("the journal's start event tells of no metric")
    return found


def metrics_of(event: Event) -> dict[str, float | None]:
    """The metrics that a ``round`` event tells, by name, the headline first.

    None where the test records do not define one, or the model has diverged.

    Raises:
        RunError: the event tells something else.
    """
    # Before there were tasks, each run was a classification and told its accuracy only.
    told = event["metrics"] if "metrics" in event else {"accuracy": event.get("accuracy")}
    return _numbers(told)


def clients_metrics(event: Event) -> dict[str, float]:
    """What clients said in a round about their own records, where they may, by name of the metric.

    Means over all records, and as ``HEADLINE-worst`` the mean of the worst tenth of the clients.

    Raises:
        RunError: the event tells something else.
    """
    told = _numbers(event.get("clients", {}))
    return {
        name.removeprefix(_OF_CLIENTS): value
        for name, value in told.items()
        if name.startswith(_OF_CLIENTS) and value is not None
    }


def _numbers(told: object) -> dict[str, float | None]:
    if not isinstance(told, dict) or not all(
        value is None or isinstance(value, int | float) for value in told.values()
    ):
        raise RunError("a round event of the journal tells of metrics wrongly")
    return {
        str(name): float(value) if value is not None and math.isfinite(value) else None
        for name, value in told.items()
    }


class JournalReader:
    """Reads a journal while it is written.

    Args:
        path: of the journal, which may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file_number, self._position = path, 0, 0

    def new_events(self) -> list[Event]:
        """What has come since the last call.

        A journal that was begun again, because its writer was restarted, is read from its start.

        Raises:
            RunError: a line is damaged.
        """
        try:
            with self._path.open("rb") as file:
                number = os.fstat(file.fileno()).st_ino
                if number != self._file_number:
                    self._file_number, self._position = number, 0
                file.seek(self._position)
                lines = _whole_lines(file.read())
        except FileNotFoundError:
            return []
        self._position += len(lines)
        return _events(lines, self._path)


def _whole_lines(content: bytes) -> bytes:
    """Without a last line that is being written, or that a crash cut short."""
    return content[: content.rfind(b"\n") + 1]


def _events(lines: bytes, path: Path) -> list[Event]:
    events = []
    for number, line in enumerate(lines.split(b"\n")[:-1], 1):
        try:
            event = json.loads(line.decode("utf-8"))
            if not isinstance(event, dict) or not isinstance(event.get("event"), str):
                raise ValueError("no event")
        except (ValueError, RecursionError) as error:
            raise RunError(f"{path} is damaged at line {number}: {error}") from None
        events.append(event)
    return events


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class Journal:
    """Appends events; on resume it starts again from the history in the checkpoint."""

    def __init__(self, run_dir: Path, history: list[Event]) -> None:
        self._path = run_dir / FILE_NAME
        write_atomically(self._path, "".join(map(to_line, history)).encode())
        self._file = self._path.open("a", encoding="utf-8")
        first = history[-1]["round"] + 1 if history else 0
        self._board = board_in(run_dir / "tensorboard", first)

    def write(self, event: Event) -> None:
        """Append one event and let readers see it at once."""
        self._file.write(to_line(event))
        self._file.flush()
        if event["event"] == "round" and self._board is not None:
            self._plot(event, self._board)

    def _plot(self, event: Event, board: Board) -> None:
        scalars = {f"model/{name}": value for name, value in metrics_of(event).items()}
        scalars |= {f"clients/{name}": value for name, value in clients_metrics(event).items()}
        scalars |= {
            "model/loss": event["loss"],
            "privacy/epsilon": event["epsilon_max"],
            "clients/ok": len(event["ok"]) if isinstance(event["ok"], list) else event["ok"],
            "clients/rejected": len(event["rejected"]),
            "round/seconds": event["seconds"],
        }
        told = {n: float(v) for n, v in scalars.items() if v is not None and math.isfinite(v)}
        board.add(told, event["round"])

    def close(self) -> None:
        """Finish both outputs."""
        try:
            self._file.close()
        finally:
            if self._board is not None:
                self._board.close()
