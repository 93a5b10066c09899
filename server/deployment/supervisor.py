"""The processes of a server: started, watched, started again, stopped; their output to files.

Children lead sessions of their own, so that Ctrl-C at a terminal reaches the supervisor alone, and
they end by themselves when it is gone (`end_with_parent`): nothing stays behind.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from logging.handlers import RotatingFileHandler
from pathlib import Path

from calyx.shared.errors import RunError

_LOG_BYTES, _LOG_FILES = 5_000_000, 5
_STOP_S = 10.0
# This many deaths within this many seconds are no accident.
_DEATHS, _WITHIN_S = 5, 120.0
_PARENT = "CALYX_PARENT"
# How much of a child's output is kept to find its fault in; the log has all of it.
_KEPT_LINES = 500
_LAST_WORDS_S = 2.0
_FAULT = re.compile(r"\b(error|critical|fatal)\b", re.IGNORECASE)


@dataclass
class Child:
    """One program that runs all the time.

    Attributes:
        name: of its log file, and in messages.
        command: program and arguments.
        environment: all of it.
        work_dir: an empty folder, so that nothing there is imported by mistake.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    work_dir: Path
    process: subprocess.Popen[bytes] | None = None
    deaths: list[float] = field(default_factory=list)


class Supervisor:
    """Runs children until told to stop.

    Args:
        log_dir: where their output goes.
    """

    def __init__(self, log_dir: Path) -> None:
        self._log_dir, self._children = log_dir, list[Child]()
        self._said: dict[str, deque[str]] = {}
        self._pumps: list[threading.Thread] = []

    def start(self, child: Child) -> None:
        """Start a child and keep it."""
        self._children.append(child)
        self._launch(child)

    def watch(self) -> list[str]:
        """Restart the children that have died; returns their names.

        Raises:
            RunError: a child dies again and again; the message quotes its last words.
        """
        again = []
        for child in self._children:
            assert child.process is not None
            code = child.process.poll()
            if code is None:
                continue
            now = time.monotonic()
            child.deaths = [t for t in child.deaths if now - t < _WITHIN_S] + [now]
            if len(child.deaths) >= _DEATHS:
                raise RunError(
                    f"{child.name} ended {_DEATHS} times with code {code} "
                    f"({self.fault_of(child.name)})",
                    hint=f"see {self._log_dir / child.name}.log",
                )
            self._launch(child)
            again.append(child.name)
        return again

    def is_alive(self, name: str) -> bool:
        """Whether a child runs."""
        return any(
            c.name == name and c.process is not None and c.process.poll() is None
            for c in self._children
        )

    def pids(self) -> dict[str, int]:
        """Process ids by name."""
        return {c.name: c.process.pid for c in self._children if c.process is not None}

    def fault_of(self, name: str) -> str:
        """What a child said went wrong since its last start; one line."""
        for pump in self._pumps:
            if pump.name == name and not self.is_alive(name):
                pump.join(_LAST_WORDS_S)  # it may not have read everything yet
        return fault_in(list(self._said.get(name, ())))

    def stop(self) -> None:
        """End all children, the youngest first; those that will not are killed."""
        for child in reversed(self._children):
            if child.process is not None and child.process.poll() is None:
                child.process.send_signal(signal.SIGTERM)
                try:
                    child.process.wait(_STOP_S)
                except subprocess.TimeoutExpired:
                    child.process.kill()
                    child.process.wait()
        for pump in self._pumps:
            pump.join()

    def _launch(self, child: Child) -> None:
        child.process = subprocess.Popen(
            child.command,
            cwd=child.work_dir,
            env={**child.environment, _PARENT: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._said[child.name] = said = deque[str](maxlen=_KEPT_LINES)
        arguments = (child.name, child.process, said)
        pump = threading.Thread(target=self._pump, args=arguments, name=child.name, daemon=True)
        pump.start()
        self._pumps = [thread for thread in self._pumps if thread.is_alive()] + [pump]

    def _pump(self, name: str, process: subprocess.Popen[bytes], said: deque[str]) -> None:
        path = self._log_dir / f"{name}.log"
        handler = RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES)
        assert process.stdout is not None
        with process.stdout as output:
            for line in output:
                text = line.decode(errors="replace").rstrip("\n")
                said.append(text)
                handler.emit(logging.LogRecord(name, logging.INFO, "", 0, text, None, None))
        handler.close()


def fault_in(lines: Iterable[str]) -> str:
    """The first line of a program's output that says what went wrong; else its last.

    A program reports the consequences of a fault after the fault, and its own end last of all. In a
    traceback it is the line of the exception, and of several tracebacks the first, the cause.
    """
    said = [line.rstrip() for line in lines if line.strip()]
    in_traceback = False
    for line in said:
        if line.startswith("Traceback (most recent call last)"):
            in_traceback = True
        elif in_traceback:
            if not line[0].isspace():
                return line[:300]
        elif _FAULT.search(line):
            return line.strip()[:300]
    return said[-1].strip()[:300] if said else "it said nothing"


def end_with_parent() -> None:
    """In a child: end at once when the supervisor is gone, even if that was killed."""
    parent = int(os.environ.get(_PARENT, "0"))
    if not parent:
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def environment(flower_home: Path) -> dict[str, str]:
    """The environment of every process of a server: nothing is reported, nothing installed."""
    return {
        **os.environ,
        "FLWR_HOME": str(flower_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_LOG_LEVEL": "WARNING",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules; ``-P``: not from the working folder."""
    return [sys.executable, "-P", "-m", module, *arguments]
