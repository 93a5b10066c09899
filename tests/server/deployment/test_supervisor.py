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

from calyx.server.deployment.supervisor import Child, Supervisor, environment, fault_in
from calyx.shared.errors import RunError


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
    monkeypatch.setattr("calyx.server.deployment.supervisor._STOP_S", 0.5)
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
    until(lambda: "deaf" in supervisor.fault_of("child"))
    supervisor.stop()
    assert not supervisor.is_alive("child")


def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    script = """
        import sys, time
        from pathlib import Path
        from calyx.server.deployment.supervisor import Child, Supervisor, environment
        here = Path(sys.argv[1])
        code = "import time; from calyx.server.deployment.supervisor import end_with_parent"
        code += chr(10) + "end_with_parent(); time.sleep(60)"
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
        # Its new parent may not have noticed its end yet.
        status = Path(f"/proc/{pid}/status")
        return not status.exists() or "State:\tZ" in status.read_text()

    until(gone)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", "it said nothing"),
        ("starting\nno port left\n\n", "no port left"),
        ("starting\nERROR :  port 9440 is taken\nINFO : bye\n", "ERROR :  port 9440 is taken"),
        (
            """\
            INFO: up
            Traceback (most recent call last):
              File "a.py", line 1, in <module>
                raise OSError("error")
            OSError: [Errno 28] no space left

            During handling of the above exception, another exception occurred:

            Traceback (most recent call last):
              File "a.py", line 3, in <module>
            SystemExit: 1
            """,
            "OSError: [Errno 28] no space left",
        ),
    ],
)
def test_the_first_line_that_says_what_went_wrong_is_told(said: str, expected: str) -> None:
    assert fault_in(textwrap.dedent(said).splitlines()) == expected


def test_a_childs_fault_is_told_and_not_what_it_said_before_or_after(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    code = """
        import sys
        print("a line of log")
        try:
            open("/nowhere")
        finally:
            import atexit
            atexit.register(print, "goodbye", file=sys.stderr)
    """
    supervisor.start(child(tmp_path, code))
    until(lambda: not supervisor.is_alive("child"))
    assert supervisor.fault_of("child").startswith("FileNotFoundError: ")
