"""Keeping libraries off the user's terminal.

Python warnings, log handlers, C++ code and child processes all end at file descriptors 1 and 2,
so that is where they are stopped: while a command works, both descriptors lead to nowhere and
Calyx writes through copies of its own. A list of loggers and warnings to mute would miss the
next one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TextIO

_STDOUT, _STDERR = 1, 2

# Nothing is reported to anyone, and Flower must not replace the installed packages.
_ALWAYS = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
_UNLESS_VERBOSE = {
    "FLWR_LOG_LEVEL": "ERROR",
    "GRPC_VERBOSITY": "NONE",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def set_environment(*, verbose: bool) -> None:
    """Set what libraries and worker processes read when they start; the user's own values win."""
    for name, value in (_ALWAYS if verbose else _ALWAYS | _UNLESS_VERBOSE).items():
        os.environ.setdefault(name, value)


@contextmanager
def own_streams(*, verbose: bool) -> Iterator[tuple[TextIO, TextIO]]:
    """Yield standard output and error for Calyx alone until the block ends.

    Whatever anything else writes meanwhile is dropped; with `verbose` it goes to standard error,
    so that standard output still holds nothing but Calyx's own words.
    """
    flush()
    with ExitStack() as stack:
        saved_out, saved_err = _copy(_STDOUT), _copy(_STDERR)
        stack.callback(os.close, saved_out)
        stack.callback(os.close, saved_err)
        sink = os.dup(saved_err) if verbose else os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, _STDOUT)
        os.dup2(sink, _STDERR)
        os.close(sink)
        try:
            with _stream(saved_out, sys.stdout) as out, _stream(saved_err, sys.stderr) as err:
                yield out, err
        finally:
            flush()
            os.dup2(saved_out, _STDOUT)
            os.dup2(saved_err, _STDERR)


def _copy(descriptor: int) -> int:
    try:
        return os.dup(descriptor)
    except OSError:  # started with this descriptor closed: no one listens
        return os.open(os.devnull, os.O_WRONLY)


def _stream(descriptor: int, like: TextIO | None) -> TextIO:
    # A terminal without Greek letters shows a question mark; it must not end the run.
    encoding = like.encoding if like is not None else "utf-8"
    return open(descriptor, "w", encoding=encoding, errors="replace", buffering=1, closefd=False)


def flush() -> None:
    """Write out what Python still holds for standard output and error.

    Raises:
        OSError: for example because the disk is full or the reader has gone.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
