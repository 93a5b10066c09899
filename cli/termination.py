"""SIGTERM as Ctrl-C: a command that is told to end removes its temporary keys first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def like_an_interrupt() -> Iterator[None]:
    """Within the block SIGTERM raises KeyboardInterrupt, once; only in the main thread.

    By default it would end the process without its clean-up. Commands that run until they are told
    to stop have handlers of their own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one must not break off the clean-up
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
