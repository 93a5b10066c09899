"""What a run reports while it is under way: ``metrics.jsonl`` and TensorBoard events.

The journal is the only channel to those that watch (terminal, scripts): they read the file, so it
works the same whether the server runs in this process, in Ray or on another machine. TensorBoard's
files are a second view of it (`calyx.server.state.board`), left out where TensorBoard is not
installed.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from calyx.server.state.board import Board, board_in
from calyx.shared.host.atomic_write import write_atomically

Event = dict[str, Any]
FILE_NAME = "metrics.jsonl"


def to_line(event: Event) -> str:
    """One JSON line; infinite and undefined numbers become null, which JSON can hold."""
    return json.dumps(_finite(event), separators=(",", ":")) + "\n"


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
        scalars = {
            "model/accuracy": event["accuracy"],
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
