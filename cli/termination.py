"""SIGTERM and SIGHUP as Ctrl-C: a command that is told to end removes its temporary keys first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def like_an_interrupt() -> Iterator[None]:
    """Within the block either signal raises KeyboardInterrupt, once; only in the main thread.

    By default they would end the process without its clean-up. Commands that run until they are
    told to stop have handlers of their own. What is ignored (nohup) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in taken:
            signal.signal(each, signal.SIG_IGN)  # a second one must not break off the clean-up
        raise KeyboardInterrupt

    taken = [s for s in _SIGNALS if signal.getsignal(s) is signal.SIG_DFL]
    for each in taken:
        signal.signal(each, interrupt)
    try:
        yield
    finally:
        for each in taken:
            signal.signal(each, signal.SIG_DFL)
