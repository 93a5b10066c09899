"""The chain of an audit's evidence: lines at the end of a file (`calyx.shared.hash_chain`)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from calyx.shared.errors import EvidenceError
from calyx.shared.hash_chain import ChainFormat, canonical_json
from calyx.shared.host.regular_file import MOST_HASHED_BYTES, open_regular, read_regular

GENESIS = "genesis"
AUDIT_AGAIN = "audit the run again with: calyx audit run"
_HASH_AT_ONCE = 1 << 20
_CHAIN = ChainFormat(number="index", previous="previous")


@dataclass(frozen=True)
class Link:
    """One line of the chain.

    Attributes:
        index: 0 for the genesis, then 1, 2, 3, ...
        name: of the piece; unique in its chain.
        file: name of its file; empty for the genesis.
        sha256: of the file, hex; of the genesis, of what it binds.
        binds: what the genesis binds; empty for the others.
        previous: hash of the line before; empty for the genesis.
        hash: SHA-256 over all of the above, hex.
    """

    index: int
    name: str
    file: str
    sha256: str
    binds: dict[str, Any]
    previous: str
    hash: str = ""

    @property
    def sealed(self) -> Link:
        """The same line with the hash that its content demands."""
        return replace(self, hash=_CHAIN.hash_of(asdict(self)))

    @property
    def line(self) -> bytes:
        """As it stands in the file. JSON could be spelt in other ways; only this one is read."""
        return canonical_json(asdict(self)) + b"\n"


class Chain:
    """The lines of one file.

    Args:
        path: to read, or where `begin` makes one.
        below: the run folder; no path may lead out of it.

    Raises:
        EvidenceError: the file is damaged.
    """

    def __init__(self, path: Path, below: Path) -> None:
        self._path, self._below = path, below
        self._links: list[Link] = []
        if os.path.lexists(path):
            self.read()

    def __iter__(self) -> Iterator[Link]:
        """All lines but the genesis."""
        return iter(self._links[1:])

    def __len__(self) -> int:
        return len(self._links)

    @property
    def head(self) -> str:
        """Hash of the last line: a witness of all before it, hex."""
        return self._links[-1].hash

    @property
    def binds(self) -> dict[str, Any]:
        """What the genesis binds."""
        return dict(self._links[0].binds)

    def begin(self, binds: dict[str, Any]) -> None:
        """Write the genesis."""
        self._append(Link(0, GENESIS, "", sha256(canonical_json(binds)), binds, ""))

    def add(self, name: str, file: str, content_sha256: str) -> None:
        """Write a line for a piece."""
        self._append(Link(len(self), name, file, content_sha256, {}, self.head))

    def read(self) -> None:
        """Read the file again.

        Raises:
            EvidenceError: it is not there, was altered, or is empty.
        """
        links: list[Link] = []
        try:
            lines = read_regular(self._path, self._below).splitlines(keepends=True)
        except OSError as error:
            raise EvidenceError(
                f"{self._path} cannot be read: {error}",
                hint=AUDIT_AGAIN,
            ) from None
        for number, line in enumerate(lines):
            try:
                link = Link(**json.loads(line))
                previous = links[-1].hash if links else ""
                fits = not _CHAIN.fault_of(asdict(link), number, previous) and link.line == line
                fits &= (link.name == GENESIS) == (number == 0)
                fits &= link.file == Path(link.file).name
            except (TypeError, ValueError, RecursionError):
                fits = False
            if not fits:
                raise EvidenceError(
                    f"{self._path} was altered or damaged at line {number + 1}",
                    hint=AUDIT_AGAIN,
                )
            links.append(link)
        if not links:
            raise EvidenceError(f"{self._path} is empty", hint=AUDIT_AGAIN)
        self._links = links

    def _append(self, link: Link) -> None:
        link = link.sealed
        try:
            with self._path.open("ab") as file:
                file.write(link.line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise EvidenceError(
                f"{self._path} cannot be written: {error}",
                hint="check the folder's permissions and free space",
            ) from None
        self._links.append(link)


def sha256(content: bytes) -> str:
    """Hex."""
    return hashlib.sha256(content).hexdigest()


def canonical_sha256(content: Any) -> str:
    """Of a JSON-ready value, hex; equal values give equal hashes."""
    return sha256(canonical_json(content))


def sha256_of(path: Path, below: Path) -> str:
    """Of a regular file of a run folder, hex.

    Raises:
        EvidenceError: it cannot be read.
    """
    try:
        hasher = hashlib.sha256()
        with open_regular(path, below, MOST_HASHED_BYTES) as file:
            while part := file.read(_HASH_AT_ONCE):
                hasher.update(part)
        return hasher.hexdigest()
    except OSError as error:
        raise EvidenceError(
            f"{path} cannot be read: {error.strerror}",
            hint="check who may read it",
        ) from None
