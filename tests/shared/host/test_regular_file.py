"""What is read of a folder from someone else, and what is not even opened."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from calyx.shared.host.regular_file import UnfitFile, check_no_link, files_below, read_regular


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    (made / "inner").mkdir(parents=True)
    (made / "inner" / "file").write_bytes(b"content")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(b"secret")
    return made


def a_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def a_link_to_a_file_of_the_folder(path: Path) -> None:
    path.symlink_to("inner/file")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


def a_device(path: Path) -> None:
    try:
        os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("only root makes device nodes")


def a_hole(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


UNFIT = [a_link, a_link_to_a_file_of_the_folder, a_pipe, a_socket, a_device, a_hole]


@pytest.mark.parametrize("make", UNFIT)
def test_is_not_read(make: Callable[[Path], None], folder: Path) -> None:
    path = folder / "odd"
    make(path)
    with pytest.raises(UnfitFile) as caught:
        read_regular(path, folder)
    assert "\n" not in str(caught.value) and "Errno" not in str(caught.value)
    if make is not a_hole:
        with pytest.raises(UnfitFile):
            list(files_below(folder))


def test_reads_what_is_there_and_says_what_is_not(folder: Path) -> None:
    path = folder / "inner" / "file"
    assert read_regular(path, folder) == b"content"
    assert list(files_below(folder)) == [path]
    with pytest.raises(FileNotFoundError):
        read_regular(folder / "inner" / "missing", folder)
    with pytest.raises(FileNotFoundError):
        read_regular(folder / "missing" / "file", folder)
    assert read_regular(path, folder, most_bytes=7) == b"content"
    with pytest.raises(UnfitFile, match="larger than 6 bytes"):
        read_regular(path, folder, most_bytes=6)


def test_a_folder_that_is_a_link_leads_nowhere(folder: Path) -> None:
    (folder / "way").symlink_to(folder.parent / "outside")
    for path in (folder / "way" / "file", folder / "inner" / "file" / "x"):
        with pytest.raises(UnfitFile, match="on the way"):
            read_regular(path, folder)
    with pytest.raises(UnfitFile, match="link"):
        list(files_below(folder))
    with pytest.raises(UnfitFile, match="link"):
        check_no_link(folder / "way" / "new", folder)
    check_no_link(folder / "inner" / "new" / "newer", folder)


@pytest.mark.parametrize("name", ["../secret", "inner/../../secret", ""])
def test_a_name_does_not_lead_out(name: str, folder: Path) -> None:
    with pytest.raises(UnfitFile, match="not below"):
        read_regular(folder / name, folder)


def test_the_folder_itself_may_be_a_link_of_the_users(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert read_regular(link / "inner" / "file", link) == b"content"
