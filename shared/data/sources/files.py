"""Files of a source: a single one, those of a folder, or the members of a tar archive.

A tar archive is read from beginning to end and never unpacked to disk. It may have been made to do
harm, so names that lead out of it, links and devices are refused, and so is an archive with more
members or more bytes, unpacked, than any honest one: a few kilobytes can claim to be petabytes.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from calyx.shared.errors import DataError

TAR_SUFFIXES = (".tar", ".tar.xz", ".tar.gz", ".tgz", ".tar.bz2")
_GIVE = "give a folder, a file or a tar archive (--data-dir PATH)"


@dataclass(frozen=True)
class Limits:
    """What is read at most, far above what honest sets have.

    Attributes:
        files: of a folder or archive.
        file_bytes: of one file.
        total_bytes: of an archive, unpacked.
    """

    files: int = 1_000_000
    file_bytes: int = 1 << 30
    total_bytes: int = 8 << 30


LIMITS = Limits()


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    Attributes:
        name: its path inside the folder or archive, with ``/``; of a single file, its name.
        shown: for messages: where it is, so that it can be found.
    """

    name: str
    shown: str
    _read: Callable[[], bytes] = field(repr=False)

    def content(self) -> bytes:
        """All of it.

        Raises:
            DataError: it cannot be read.
        """
        return self._read()


def is_tar(path: Path) -> bool:
    """Whether the name says that it is a tar archive."""
    return path.name.lower().endswith(TAR_SUFFIXES)


def source_files(place: str, suffixes: Sequence[str], limits: Limits = LIMITS) -> list[SourceFile]:
    """All files with one of the suffixes, in order of their names; hidden ones are left out.

    Args:
        place: a file, a folder or a tar archive.
        suffixes: in lower case, with their dot.
        limits: what is read at most.

    Raises:
        DataError: there is no such place, it cannot be read, has none of these files, or is an
            archive that must not be read.
    """
    path = Path(place)
    if path.is_dir():
        found = _of_folder(path, suffixes, limits)
    elif is_tar(path):
        found = _of_tar(path, suffixes, limits)
    elif path.is_file():
        found = [SourceFile(path.name, str(path), _reader(path, limits))]
    else:
        raise DataError(f"data.directory = {place}: no such file or folder", hint=_GIVE)
    wanted = [file for file in found if file.name.lower().endswith(tuple(suffixes))]
    if not wanted:
        raise DataError(f"{place} holds no {' or '.join(suffixes)} file", hint=_GIVE)
    return sorted(wanted, key=lambda file: file.name)


def _of_folder(folder: Path, suffixes: Sequence[str], limits: Limits) -> list[SourceFile]:
    found = []
    try:
        for count, path in enumerate(folder.rglob("*")):
            if count >= limits.files:
                raise DataError(
                    f"{folder} holds more than {limits.files:,} files",
                    hint="give a smaller folder",
                )
            name = path.relative_to(folder).as_posix()
            # What is no regular file, such as a pipe, would be waited for without end.
            if name.lower().endswith(tuple(suffixes)) and _is_shown(name) and path.is_file():
                found.append(SourceFile(name, str(path), _reader(path, limits)))
    except OSError as error:
        raise DataError(
            f"{folder} cannot be read: {error.strerror or error}",
            hint="check the path and who may read it",
        ) from None
    return found


def _is_shown(name: str) -> bool:
    """Neither hidden nor what a Mac puts beside each file."""
    return not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _reader(path: Path, limits: Limits) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            with path.open("rb") as file:
                content = file.read(limits.file_bytes + 1)
        except OSError as error:
            raise DataError(
                f"{path} cannot be read: {error.strerror or error}",
                hint="check the path and who may read it",
            ) from None
        if len(content) > limits.file_bytes:
            raise DataError(f"{path} is larger than {limits.file_bytes:,} bytes", hint="divide it")
        return content

    return read


def _of_tar(path: Path, suffixes: Sequence[str], limits: Limits) -> list[SourceFile]:
    found: dict[str, SourceFile] = {}
    try:
        # A pipe would be waited for.
        if not path.is_file():
            raise DataError(f"{path}: no such file", hint=_GIVE)
        with path.open("rb") as packed, _unpacked(packed, path) as stream:
            bounded = _Bounded(stream, path, limits.total_bytes)
            # Errors in headers end the reading instead of being passed over.
            with tarfile.open(fileobj=bounded, mode="r|", errorlevel=2) as archive:
                for name, content in _members(archive, path, suffixes, limits):
                    if name in found:
                        raise DataError(
                            f"{path}: {name} is in the archive twice, and which one counts is not "
                            "clear",
                            hint="pack it again",
                        )
                    found[name] = SourceFile(name, f"{path}: {name}", partial(bytes, content))
    except (tarfile.TarError, lzma.LZMAError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path} is damaged or not a tar archive ({reason})",
            hint="fetch it again",
        ) from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="check the path and who may read it",
        ) from None
    return list(found.values())


def _members(
    archive: tarfile.TarFile, path: Path, suffixes: Sequence[str], limits: Limits
) -> Iterator[tuple[str, bytes]]:
    for count, member in enumerate(archive):
        if count >= limits.files:
            raise DataError(
                f"{path} has more than {limits.files:,} members",
                hint="give a smaller one",
            )
        _check_member(member, path)
        name = PurePosixPath(member.name).as_posix()
        if not member.isfile() or not _is_shown(name) or not name.lower().endswith(tuple(suffixes)):
            continue
        if member.size > limits.file_bytes:
            raise DataError(
                f"{path}: {name} says it has {member.size:,} bytes, more than the "
                f"{limits.file_bytes:,} that are read",
                hint="divide it",
            )
        opened = archive.extractfile(member)
        content = b"" if opened is None else opened.read()
        if len(content) != member.size:
            raise DataError(f"{path}: {name} is truncated", hint="fetch the archive again")
        yield name, content


def _check_member(member: tarfile.TarInfo, path: Path) -> None:
    pure = PurePosixPath(member.name)
    reason = ""
    if pure.is_absolute() or ".." in pure.parts or "\\" in member.name:
        reason = "leads out of it"
    elif not member.name.isprintable():
        reason = "has characters that cannot be shown"
    elif member.issym() or member.islnk():
        reason = "is a link"
    elif not (member.isfile() or member.isdir()):
        reason = "is neither a file nor a folder"
    if reason:
        raise DataError(
            f"{path}: member {member.name!r} {reason}, which no data set needs",
            hint="do not use this archive, or pack the files again",
        )


def _unpacked(packed: BinaryIO, path: Path) -> BinaryIO:
    # These are binary files, though typeshed does not say so.
    name = path.name.lower()
    if name.endswith(".xz"):
        return cast(BinaryIO, lzma.open(packed))
    if name.endswith((".gz", ".tgz")):
        return cast(BinaryIO, gzip.open(packed))
    return cast(BinaryIO, bz2.open(packed)) if name.endswith(".bz2") else packed


class _Bounded(io.RawIOBase):
    """A stream that ends in a refusal once more has been read than any honest archive holds."""

    def __init__(self, stream: BinaryIO, path: Path, most_bytes: int) -> None:
        self._stream, self._path, self._most, self._left = stream, path, most_bytes, most_bytes

    def read(self, size: int = -1) -> bytes:
        wanted = self._left + 1 if size < 0 else min(size, self._left + 1)
        piece = self._stream.read(wanted)
        self._left -= len(piece)
        if self._left < 0:
            raise DataError(
                f"{self._path} unpacks to more than {self._most:,} bytes",
                hint="unpack it yourself if you trust it, and give the folder",
            )
        return piece
