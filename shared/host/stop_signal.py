"""SIGTERM and Ctrl-C as an event that a main thread can wait for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_signal(on_stop: Callable[[], None] = lambda: None) -> Iterator[threading.Event]:
    """Within the block, SIGTERM and SIGINT set the event and do nothing else; main thread only.

    Args:
        on_stop: called after the event was set; what it raises ends what the main thread does.
    """
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()
        on_stop()

    previous = {s: signal.signal(s, on_signal) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
