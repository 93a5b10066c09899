"""Files of folders and archives, and archives that must not be read."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from calyx.shared.data.sources.files import Limits, source_files
from calyx.shared.errors import DataError

SMALL = Limits(files=5, file_bytes=1000, total_bytes=40_000)


@pytest.mark.parametrize("name", ["set.tar", "set.tar.xz", "set.tar.gz", "set.tgz", "set.tar.bz2"])
def test_an_archive_has_the_same_files_as_its_folder(
    pack: Callable[..., Path], write: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    contents = {"b/2.wav": b"two", "b/.hidden.wav": b"", "a/1.wav": b"one", "a/notes.txt": b""}
    for member, content in contents.items():
        write(f"folder/{member}", content)
    packed = source_files(str(pack(name, contents)), (".wav",))
    plain = source_files(str(tmp_path / "folder"), (".wav",))
    for files in (packed, plain):
        assert [(file.name, file.content()) for file in files] == [
            ("a/1.wav", b"one"),
            ("b/2.wav", b"two"),
        ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("../up.wav", "leads out"), ("/abs.wav", "leads out"), ("a/../../b.wav", "leads out")],
)
def test_members_that_lead_out_of_the_archive_are_refused(
    pack: Callable[..., Path], name: str, reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        source_files(str(pack("evil.tar", {name: b"x", "good.wav": b"y"})), (".wav",))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        member = tarfile.TarInfo("one.wav")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(DataError, match=r"'one.wav' is (a link|neither a file nor a folder)"):
        source_files(str(tmp_path / "links.tar"), (".wav",))


def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "twice.tar", "w") as archive:
        for content in (b"one", b"two"):
            member = tarfile.TarInfo("same.wav")
            member.size = 3
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(DataError, match=r"same\.wav is in the archive twice"):
        source_files(str(tmp_path / "twice.tar"), (".wav",))


def test_bombs_end_at_the_limits(pack: Callable[..., Path]) -> None:
    many = pack("many.tar.xz", {f"{i}.wav": b"" for i in range(9)})
    with pytest.raises(DataError, match=r"many\.tar\.xz has more than 5 members"):
        source_files(str(many), (".wav",), SMALL)
    large = pack("large.tar.gz", {"large.wav": bytes(2000)})
    with pytest.raises(DataError, match=r"large\.wav says it has 2,000 bytes"):
        source_files(str(large), (".wav",), SMALL)
    # Also what is not wanted is unpacked, so it counts.
    bomb = pack("bomb.tar.xz", {"other.bin": bytes(5_000_000), "a.wav": b"a"})
    assert bomb.stat().st_size < 5000
    with pytest.raises(DataError, match=r"bomb\.tar\.xz unpacks to more than 40,000 bytes"):
        source_files(str(bomb), (".wav",), SMALL)


def test_damaged_and_cut_archives_are_refused(pack: Callable[..., Path], write) -> None:
    whole = pack("whole.tar.xz", {"a.wav": os.urandom(4000)}).read_bytes()
    for content in (whole[: len(whole) // 2], b"no archive at all", b""):
        with pytest.raises(DataError, match=r"cut\.tar\.xz (is damaged|holds no)"):
            source_files(str(write("cut.tar.xz", content)), (".wav",))
    plain = pack("plain.tar", {"a.wav": bytes(4000)}).read_bytes()
    with pytest.raises(DataError, match=r"short\.tar.*(truncated|damaged)"):
        source_files(str(write("short.tar", plain[:2000])), (".wav",))


def test_places_without_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such file or folder"):
        source_files(str(tmp_path / "nowhere"), (".wav",))
    with pytest.raises(DataError, match=r"nowhere\.tar: no such file"):
        source_files(str(tmp_path / "nowhere.tar"), (".wav",))
    with pytest.raises(DataError, match=r"holds no \.png or \.jpg file"):
        source_files(str(tmp_path), (".png", ".jpg"))


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path, write: Callable[..., Path]) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    write("real.wav", b"x")
    assert [file.name for file in source_files(str(tmp_path), (".wav",))] == ["real.wav"]
