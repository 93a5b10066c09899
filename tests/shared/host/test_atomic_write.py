"""A file has its old content or its new, whatever happens while it is written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from calyx.shared.errors import EncryptionError
from calyx.shared.host.atomic_write import create_atomically, write_atomically
from calyx.shared.host.private_files import create_private, replace_file

Write = Callable[[Path, bytes], None]
OLD, NEW = b"old", b"new" * 100_000

# Run where the disk is full, or seems so: what fails must leave nothing behind.
ON_A_FULL_DISK = """
import sys
from pathlib import Path
from calyx.shared.host.atomic_write import create_atomically, write_atomically
from calyx.shared.host.private_files import create_private, replace_file

folder = Path(sys.argv[1])
(folder / "file").write_bytes(b"old")
for write in (write_atomically, replace_file):
    try:
        write(folder / "file", b"new" * 100_000)
    except OSError as error:
        print(error.errno)
for write in (create_atomically, create_private):
    try:
        write(folder / "another", b"new" * 100_000)
    except OSError as error:
        print(error.errno)
print((folder / "file").read_bytes(), sorted(p.name for p in folder.iterdir()))
"""
SIZE_LIMIT = "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (65536, 65536))\n"
KEEPS_WRITING = """
import sys
from pathlib import Path
from calyx.shared.host.atomic_write import write_atomically
print("ready", flush=True)
while True:
    for letter in b"ab":
        write_atomically(Path(sys.argv[1]), bytes([letter]) * 3_000_000)
"""


def python(code: str, *words: str, within: tuple[str, ...] = ()) -> str:
    done = subprocess.run(
        [*within, sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def test_a_write_that_the_kernel_cuts_short_changes_nothing(tmp_path: Path) -> None:
    """A file-size limit: the first part of the content is written, the rest is refused."""
    told = python(SIZE_LIMIT + ON_A_FULL_DISK, str(tmp_path))
    assert told.split("\n")[:4] == ["27"] * 4  # EFBIG
    assert told.split("\n")[4] == "b'old' ['file']"


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    """A real file system of 128 kB, in a mount namespace of its own."""
    alone = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)))
    mount = ("sh", "-c", 'mount -t tmpfs -o size=128k tmpfs "$0" && exec "$@"', str(tmp_path))
    try:
        subprocess.run([*alone, *mount, "true"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system may be mounted here")
    told = python(ON_A_FULL_DISK, str(tmp_path), within=(*alone, *mount))
    assert told.split("\n")[:4] == ["28"] * 4  # ENOSPC
    assert told.split("\n")[4] == "b'old' ['file']"


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    for pause in (0.02, 0.11, 0.23):
        with subprocess.Popen(
            [sys.executable, "-c", KEEPS_WRITING, str(target)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            while not target.exists():
                time.sleep(0.01)
            time.sleep(pause)
            writer.kill()
        content = target.read_bytes()
        assert content in (b"a" * 3_000_000, b"b" * 3_000_000)


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    target = tmp_path / "file"
    code = KEEPS_WRITING.replace("while True:", "for _ in range(5):")
    writers = [subprocess.Popen([sys.executable, "-c", code, str(target)]) for _ in range(2)]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    assert target.read_bytes() == b"b" * 3_000_000
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_writer_left_goes_and_what_another_writes_now_stays(tmp_path: Path) -> None:
    left, fresh, other = (
        tmp_path / name for name in (".file.0123.part", ".file.4567.part", ".other.0123.part")
    )
    for path in (left, fresh, other):
        path.write_bytes(b"half")
    for path in (left, other):
        os.utime(path, (0, 0))
    write_atomically(tmp_path / "file", OLD)
    assert {p.name for p in tmp_path.iterdir()} == {"file", fresh.name, other.name}


@pytest.mark.parametrize("write", [write_atomically, replace_file])
def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path, write: Write) -> None:
    target = tmp_path / "file"
    write(target, OLD)
    write(target, NEW)
    assert target.read_bytes() == NEW
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("write", [create_private, replace_file])
def test_a_private_file_is_its_owners_alone(tmp_path: Path, write: Write) -> None:
    (tmp_path / "open").write_bytes(OLD)
    (tmp_path / "open").chmod(0o666)
    before = os.umask(0)
    try:
        write(tmp_path / "file", OLD)
        replace_file(tmp_path / "open", NEW)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_file_that_is_there_is_not_created_again(tmp_path: Path) -> None:
    create_atomically(tmp_path / "file", OLD)
    with pytest.raises(FileExistsError):
        create_atomically(tmp_path / "file", NEW)
    with pytest.raises(EncryptionError, match="never replaced"):
        create_private(tmp_path / "file", NEW)
    assert (tmp_path / "file").read_bytes() == OLD
    assert (tmp_path / "file").stat().st_nlink == 1
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
