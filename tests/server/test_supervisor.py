"""Children are started again, given up on, stopped, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.supervisor import Child, Supervisor, environment
from shared.errors import RunError


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path)
    yield made
    made.stop()


def child(tmp_path: Path, code: str) -> Child:
    command = [sys.executable, "-P", "-c", textwrap.dedent(code)]
    return Child("child", command, environment(tmp_path), tmp_path)


def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_child_that_dies_is_started_again(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(child(tmp_path, "import time; print('up', flush=True); time.sleep(60)"))
    first = supervisor.pids()["child"]
    os.kill(first, signal.SIGKILL)
    until(lambda: supervisor.watch() == ["child"])
    assert supervisor.pids()["child"] != first and supervisor.is_alive("child")


def test_child_that_dies_again_and_again_is_given_up_with_its_last_words(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    supervisor.start(child(tmp_path, "print('no port left', flush=True); raise SystemExit(3)"))

    def fails() -> bool:
        try:
            supervisor.watch()
        except RunError as error:
            assert "code 3 (no port left)" in str(error)
            return True
        return False

    until(fails)


def test_stop_also_ends_a_child_that_will_not(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.supervisor._STOP_S", 0.5)
    supervisor.start(
        child(
            tmp_path,
            """
            import signal, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("deaf", flush=True)
            time.sleep(60)
            """,
        )
    )
    until(lambda: "deaf" in supervisor.last_words("child"))
    supervisor.stop()
    assert not supervisor.is_alive("child")


def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    script = """
        import sys, time
        from pathlib import Path
        from server.supervisor import Child, Supervisor, environment
        here = Path(sys.argv[1])
        code = "from server.supervisor import end_with_parent; end_with_parent()" + chr(10)
        code += "import time; time.sleep(60)"
        s = Supervisor(here)
        s.start(Child("child", [sys.executable, "-c", code], environment(here), here))
        print(s.pids()["child"], flush=True)
        time.sleep(60)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    until(lambda: Path(f"/proc/{pid}").exists())
    parent.kill()
    parent.wait()
    parent.stdout.close()

    def gone() -> bool:
        # Its new parent may not have taken note of its end yet.
        status = Path(f"/proc/{pid}/status")
        return not status.exists() or "State:\tZ" in status.read_text()

    until(gone)
