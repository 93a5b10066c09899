"""One process serves a folder; others see which, wait for it, or tell it to stop."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from calyx.shared.errors import RunError, UsageError
from calyx.shared.host.process_lock import exclusive_waiting
from calyx.shared.host.served_folder import ServedFolder, read_status, write_status

SERVES = """
import sys
from pathlib import Path
from calyx.shared.host.served_folder import ServedFolder
from calyx.shared.host.stop_signal import stop_signal
folder = ServedFolder(Path(sys.argv[1]), taken="taken", hint="see it", log=Path("log"))
with stop_signal() as stop, folder.exclusive():
    print("ready", flush=True)
    stop.wait()
    if "stubborn" in sys.argv:
        sys.stdin.read()
"""
INTERRUPTED = """
import sys, time
from calyx.shared.host.stop_signal import stop_signal
def interrupt():
    raise RuntimeError("interrupted")
try:
    with stop_signal(interrupt) as stop:
        print("ready", flush=True)
        time.sleep(60)
except RuntimeError as error:
    print(error, stop.is_set(), flush=True)
"""


@contextmanager
def process(code: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as started:
        try:
            assert started.stdout is not None and started.stdout.readline() == "ready\n"
            yield started
        finally:
            started.kill()


def served(path: Path) -> ServedFolder:
    return ServedFolder(path, taken="it is served already", hint="see it", log=path / "logs")


def test_a_folder_is_served_by_one_process_which_stops_when_it_is_told_to(tmp_path: Path) -> None:
    folder = served(tmp_path)
    assert folder.running_pid() is None and not folder.stop_running(1)
    with process(SERVES, str(tmp_path)) as server:
        assert folder.running_pid() == server.pid
        with pytest.raises(UsageError, match="it is served already"), folder.exclusive():
            pass
        assert folder.stop_running(60)
        assert server.wait(60) == 0
    assert folder.running_pid() is None
    with folder.exclusive():
        pass


def test_a_process_that_does_not_stop_is_an_error_that_names_its_log(tmp_path: Path) -> None:
    with (
        process(SERVES, str(tmp_path), "stubborn"),
        pytest.raises(RunError, match=r"does not stop\nhint: see .*logs"),
    ):
        served(tmp_path).stop_running(0.3)


def test_a_lock_goes_with_the_process_that_was_killed(tmp_path: Path) -> None:
    with process(SERVES, str(tmp_path)) as server:
        server.kill()
        server.wait()
        assert served(tmp_path).running_pid() is None


def test_short_changes_wait_for_each_other(tmp_path: Path) -> None:
    """Each process reads, and writes one more; none of the changes is lost."""
    (tmp_path / "count").write_text("0")
    code = """
import sys
from pathlib import Path
from calyx.shared.host.process_lock import exclusive_waiting
folder = Path(sys.argv[1])
print("ready", flush=True)
for _ in range(200):
    with exclusive_waiting(folder / "lock"):
        (folder / "count").write_text(str(int((folder / "count").read_text()) + 1))
"""
    with process(code, str(tmp_path)) as one, process(code, str(tmp_path)) as other:
        assert (one.wait(60), other.wait(60)) == (0, 0)
    assert (tmp_path / "count").read_text() == "400"


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_a_lock_that_is_no_regular_file_is_refused(tmp_path: Path, kind: str) -> None:
    if kind == "link":
        (tmp_path / "mine").write_text("mine")
        (tmp_path / "lock").symlink_to(tmp_path / "mine")
    else:
        (tmp_path / "lock").mkdir()
    with pytest.raises(UsageError, match="is a link or not a regular file"):
        served(tmp_path).exclusive().__enter__()
    with pytest.raises(UsageError, match="is a link or not a regular file"):
        exclusive_waiting(tmp_path / "lock").__enter__()
    assert kind == "folder" or (tmp_path / "mine").read_text() == "mine"


def test_a_signal_can_end_what_is_being_computed() -> None:
    with process(INTERRUPTED) as computing:
        computing.terminate()
        assert computing.stdout is not None
        assert computing.stdout.readline() == "interrupted True\n"
        assert computing.wait(60) == 0


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b"\xff"])
def test_a_status_that_is_missing_or_damaged_says_nothing(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "status.json"
    if content is not None:
        path.write_bytes(content)
    assert read_status(path) == {}
    write_status(path, {"state": "connected", "trained": 2})
    assert read_status(path) == {"state": "connected", "trained": 2}
    assert path.stat().st_mode & 0o777 == 0o600
