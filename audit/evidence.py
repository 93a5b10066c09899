"""What an audit found, kept so that every figure of its report can be computed again.

>>> store = EvidenceStore(run_dir)
>>> store.put_arrays("canary-scores", {"scores": scores})
>>> store.check()

::

    RUN_DIR/audit/evidence/
      chain.jsonl       one line for each piece, in the order in which they came
      NAME.json         what `put_json` was given
      NAME.npz          what `put_arrays` was given

Each line of the chain carries the hash of its file and of the line before it. The first line, the
genesis, binds the run itself: the heads of the clients' privacy ledgers, the digest of the
configuration, and the hash of every file of the run. A piece is written once and never replaced, so
that what was committed to before the coins were known stays what it was.

The chain has no secret. It finds damage and later changes; whoever may write the whole folder can
make a new chain over other evidence. Note the head elsewhere (it is printed in the report) to
prove which evidence there was.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.ledger import Ledger
from server.durable import write_atomically
from shared.config.load import digest
from shared.errors import CalyxError, EvidenceError, LedgerError
from simulations.run_folder import RunFolder

CHAIN = "chain.jsonl"
GENESIS = "genesis"
# Made for every report; evidence that holds no more than these is of no audit.
OF_EVERY_REPORT = frozenset({"evaluation"})
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")
_HASH_AT_ONCE = 1 << 20
_ANEW = "audit the run anew with: calyx audit run"

Arrays = dict[str, NDArray[Any]]


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
        content = asdict(self)
        del content["hash"]
        return replace(self, hash=_sha256(_canonical(content)))


class EvidenceStore:
    """The evidence about one run; made, with its genesis, if there is none yet.

    Args:
        run_dir: the run folder.
        earlier: for a new chain: heads of the chains before it, see `anew`.

    Raises:
        EvidenceError: the chain is damaged, or the run cannot be bound.
    """

    def __init__(self, run_dir: Path, *, earlier: Sequence[str] = ()) -> None:
        self.run_dir = run_dir.absolute()
        self.directory = self.run_dir / "audit" / "evidence"
        self._chain_path = self.directory / CHAIN
        self._links: list[Link] = []
        if self._chain_path.exists():
            self._links = self._read_chain()
        else:
            self._begin(list(earlier))

    @classmethod
    def anew(cls, run_dir: Path) -> EvidenceStore:
        """Begin a new chain and put aside the evidence of an earlier audit, which it then names.

        An audit that is repeated until its result pleases says less than it seems to. So the
        heads of earlier audits' chains are bound by the new one and counted in the report.
        """
        directory = run_dir.absolute() / "audit" / "evidence"
        earlier: list[str] = []
        if directory.exists():
            try:
                before = cls(run_dir)
            except EvidenceError:
                earlier = [f"unreadable:{_sha256_of(directory / CHAIN)}"]
            else:
                is_audit = not OF_EVERY_REPORT.issuperset(before.names())
                earlier = before.earlier + ([before.head] if is_audit else [])
            number = 1
            while (aside := directory.with_name(f"evidence-{number:03d}")).exists():
                number += 1
            directory.rename(aside)
        return cls(run_dir, earlier=earlier)

    @classmethod
    def existing(cls, run_dir: Path) -> EvidenceStore:
        """Open evidence that must be there.

        Raises:
            EvidenceError: it is not.
        """
        chain = run_dir.absolute() / "audit" / "evidence" / CHAIN
        if not chain.is_file():
            raise EvidenceError(f"there is no evidence at {chain.parent}; {_ANEW} {run_dir}")
        return cls(run_dir)

    @property
    def head(self) -> str:
        """Hash of the last line: a witness of all evidence so far, hex."""
        return self._links[-1].hash

    @property
    def count(self) -> int:
        """Lines of the chain, the genesis included."""
        return len(self._links)

    @property
    def earlier(self) -> list[str]:
        """Heads of the chains of earlier audits of this run, oldest first."""
        return list(self._links[0].binds["earlier"])

    @property
    def binds(self) -> dict[str, Any]:
        """What the genesis binds: ``config_digest``, ``files``, ``ledgers`` and ``earlier``."""
        return dict(self._links[0].binds)

    def names(self) -> list[str]:
        """Names of all pieces, in the order in which they came."""
        return [link.name for link in self._links[1:]]

    def has(self, name: str) -> bool:
        """Whether there is such a piece."""
        return name in self.names()

    def index(self, name: str) -> int:
        """Place of a piece in the chain: of two pieces the one with the lower index came first."""
        return self._link(name).index

    def put_json(self, name: str, value: Any) -> None:
        """Keep a JSON-ready value; infinite numbers are refused, say None for them.

        Raises:
            EvidenceError: the name is not lower-case letters, digits and hyphens, or taken.
        """
        try:
            text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise EvidenceError(f"evidence {name!r} is not JSON: {error}") from None
        self._put(name, f"{name}.json", text.encode())

    def put_arrays(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep arrays of numbers, bools or fixed-width text.

        Raises:
            EvidenceError: as `put_json`; or an array holds Python objects.
        """
        if any(np.asarray(array).dtype.hasobject for array in arrays.values()):
            raise EvidenceError(f"evidence {name!r} holds Python objects, which are not kept")
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
        self._put(name, f"{name}.npz", buffer.getvalue())

    def get_json(self, name: str) -> Any:
        """Read back what `put_json` kept.

        Raises:
            EvidenceError: there is no such piece, or its file was altered.
        """
        return json.loads(self._content(name, ".json"))

    def get_arrays(self, name: str) -> Arrays:
        """Read back what `put_arrays` kept; errors as `get_json`."""
        with np.load(io.BytesIO(self._content(name, ".npz")), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}

    def check(self) -> None:
        """See that nothing was altered: chain, evidence, and the files and ledgers of the run.

        Raises:
            EvidenceError: naming the first thing that is not as it was.
        """
        self._links = self._read_chain()
        listed = {link.file for link in self._links[1:]} | {CHAIN}
        for path in sorted(self.directory.iterdir()):
            if path.name not in listed:
                raise EvidenceError(f"{path} is not in the chain of evidence; {_ANEW}")
        for link in self._links[1:]:
            self._content(link.name, Path(link.file).suffix)
        self.check_run()

    def check_run(self) -> None:
        """See that the run is still the one that the genesis binds.

        Raises:
            EvidenceError: naming the first file that is not as it was.
        """
        now, then = _bound(self.run_dir), self.binds
        for kind in ("files", "ledgers"):
            for name in sorted({*now[kind], *then[kind]}):
                if now[kind].get(name) != then[kind].get(name):
                    what = f"ledger of {name}" if kind == "ledgers" else str(self.run_dir / name)
                    raise EvidenceError(
                        f"{what} {_difference(then[kind].get(name), now[kind].get(name))} since "
                        f"the evidence was gathered; restore it, or {_ANEW} {self.run_dir}"
                    )
        if now["config_digest"] != then["config_digest"]:
            raise EvidenceError(f"the evidence is of a run with another configuration; {_ANEW}")

    def _begin(self, earlier: list[str]) -> None:
        binds = {**_bound(self.run_dir), "earlier": earlier}
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EvidenceError(f"{self.directory} cannot be made: {error.strerror}") from None
        bound = _sha256(_canonical(binds))
        self._append(Link(0, GENESIS, "", bound, binds, "").sealed)

    def _put(self, name: str, file: str, content: bytes) -> None:
        if not _NAME.fullmatch(name) or name == GENESIS:
            raise EvidenceError(
                f"{name!r} is no name for evidence: lower-case letters, digits and hyphens"
            )
        if self.has(name):
            raise EvidenceError(f"there is evidence {name!r} already, and none is ever replaced")
        try:
            write_atomically(self.directory / file, content)
        except OSError as error:
            raise EvidenceError(f"{self.directory / file} cannot be written: {error}") from None
        link = Link(self.count, name, file, _sha256(content), {}, self.head)
        self._append(link.sealed)

    def _append(self, link: Link) -> None:
        try:
            with self._chain_path.open("ab") as file:
                file.write(_canonical(asdict(link)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise EvidenceError(f"{self._chain_path} cannot be written: {error}") from None
        self._links.append(link)

    def _read_chain(self) -> list[Link]:
        links: list[Link] = []
        try:
            lines = self._chain_path.read_bytes().splitlines(keepends=True)
        except OSError as error:
            raise EvidenceError(f"{self._chain_path} cannot be read: {error}") from None
        for number, line in enumerate(lines):
            try:
                link = Link(**json.loads(line))
                fits = link.sealed == link and link.index == number
                # The very bytes that were written: JSON could be spelt in other ways.
                fits &= line == _canonical(asdict(link)) + b"\n"
                fits &= link.previous == (links[-1].hash if links else "")
                fits &= (link.name == GENESIS) == (number == 0)
            except (TypeError, ValueError, RecursionError):
                fits = False
            if not fits:
                raise EvidenceError(
                    f"{self._chain_path} was altered or damaged at line {number + 1}; {_ANEW}"
                )
            links.append(link)
        if not links:
            raise EvidenceError(f"{self._chain_path} is empty; {_ANEW}")
        return links

    def _link(self, name: str) -> Link:
        for link in self._links[1:]:
            if link.name == name:
                return link
        raise EvidenceError(f"there is no evidence {name!r} in {self.directory}; {_ANEW}")

    def _content(self, name: str, suffix: str) -> bytes:
        link = self._link(name)
        path = self.directory / link.file
        if path.suffix != suffix:
            raise EvidenceError(f"evidence {name!r} is kept as {link.file}, not as *{suffix}")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise EvidenceError(f"{path} cannot be read ({error.strerror}); {_ANEW}") from None
        if _sha256(content) != link.sha256:
            raise EvidenceError(f"{path} was altered since it was gathered; {_ANEW}")
        return content


def _bound(run_dir: Path) -> dict[str, Any]:
    """What of a run the genesis binds."""
    folder = RunFolder(run_dir)
    if not folder.exists:
        raise EvidenceError(f"{run_dir} is not the folder of a run: it has no config.toml")
    try:
        config_digest = digest(folder.stored_config())
    except (CalyxError, ValueError) as error:
        raise EvidenceError(f"{folder.config_path} cannot be read: {error}") from None
    # Ledgers first: opening one rolls back what a killed process left half done.
    ledgers = {path.stem: _ledger_head(path) for path in sorted(folder.ledger_dir.glob("*.sqlite"))}
    return {"config_digest": config_digest, "ledgers": ledgers, "files": _files(folder.path)}


def _ledger_head(path: Path) -> dict[str, Any]:
    try:
        with Ledger.read_only(path) as ledger:
            entries = ledger.verify()
            return {"head": ledger.head_hash, "entries": entries, "data": ledger.data_fingerprint}
    except LedgerError as error:
        raise EvidenceError(str(error)) from None


def _files(run_dir: Path) -> dict[str, str]:
    """Hash of every file of the run; not of the audit itself, nor of hidden or temporary ones."""
    found = {}
    for path in sorted(run_dir.rglob("*")):
        relative = path.relative_to(run_dir)
        hidden = any(part.startswith(".") for part in relative.parts)
        if relative.parts[0] != "audit" and not hidden and path.is_file():
            found[relative.as_posix()] = _sha256_of(path)
    return found


def _difference(then: Any, now: Any) -> str:
    return "is missing" if now is None else "appeared" if then is None else "was altered"


def _sha256_of(path: Path) -> str:
    try:
        hasher = hashlib.sha256()
        with path.open("rb") as file:
            while part := file.read(_HASH_AT_ONCE):
                hasher.update(part)
        return hasher.hexdigest()
    except OSError as error:
        raise EvidenceError(f"{path} cannot be read: {error.strerror}") from None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
