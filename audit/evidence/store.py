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
a commitment made before the coins were known stays what it was.

The chain has no secret. It finds damage and later changes; anyone who may write the whole folder
can make a new chain over other evidence. Note the head elsewhere (it is printed in the report) to
prove which evidence there was.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calyx.audit.evidence.hash_chain import AUDIT_AGAIN, GENESIS, Chain, Link, sha256, sha256_of
from calyx.audit.evidence.run_binding import bound, check_unchanged
from calyx.shared.data.sources.npz import arrays_of
from calyx.shared.errors import DataError, EvidenceError
from calyx.shared.host.atomic_write import write_atomically
from calyx.shared.host.regular_file import MOST_BYTES, UnfitFile, check_no_link, read_regular
from calyx.shared.protocol.identity import code_hash
from calyx.simulations.run_folder import CODE_OF_A_RUN

CHAIN = "chain.jsonl"
# Made for every report; evidence that holds no more than these belongs to no audit.
OF_EVERY_REPORT = frozenset({"evaluation"})
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")

Arrays = dict[str, NDArray[Any]]


class EvidenceStore:
    """The evidence about one run; made, with its genesis, if there is none yet.

    Args:
        run_dir: the run folder.
        earlier: for a new chain, the heads of the chains before it, see `anew`.

    Raises:
        EvidenceError: the chain is damaged, or the run cannot be bound.
    """

    def __init__(self, run_dir: Path, *, earlier: Sequence[str] = ()) -> None:
        self.run_dir = run_dir.absolute()
        self.directory = self.run_dir / "audit" / "evidence"
        try:
            check_no_link(self.directory / CHAIN, self.run_dir)  # what is written stays within, too
        except UnfitFile as error:
            raise EvidenceError(
                f"the evidence of {run_dir} is not used: {error}",
                hint="use the folder that the run was written to",
            ) from None
        self._chain = Chain(self.directory / CHAIN, self.run_dir)
        if not len(self._chain):
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
                earlier = [f"unreadable:{sha256_of(directory / CHAIN, run_dir.absolute())}"]
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
            raise EvidenceError(
                f"there is no evidence at {chain.parent}",
                hint=f"{AUDIT_AGAIN} {run_dir}",
            )
        return cls(run_dir)

    @property
    def head(self) -> str:
        """Hash of the last line: a witness of all evidence so far, hex."""
        return self._chain.head

    @property
    def count(self) -> int:
        """Lines of the chain, the genesis included."""
        return len(self._chain)

    @property
    def earlier(self) -> list[str]:
        """Heads of the chains of earlier audits of this run, oldest first."""
        return list(self._chain.binds["earlier"])

    @property
    def binds(self) -> dict[str, Any]:
        """What the genesis binds: ``config_digest``, ``files``, ``ledgers``, ``earlier``, ``code``.

        The last is the hash of the code that this audit runs with.
        """
        return self._chain.binds

    def names(self) -> list[str]:
        """Names of all pieces, in the order in which they came."""
        return [link.name for link in self._chain]

    def has(self, name: str) -> bool:
        """Whether there is such a piece."""
        return name in self.names()

    def index(self, name: str) -> int:
        """Place of a piece in the chain: the piece with the lower index came first."""
        return self._link(name).index

    def put_json(self, name: str, value: Any) -> None:
        """Keep a JSON-ready value; infinite numbers are refused, use None instead.

        Raises:
            EvidenceError: the name is not lower-case letters, digits and hyphens, or taken.
        """
        try:
            text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise EvidenceError(
                f"evidence {name!r} is not JSON: {error}",
                hint=AUDIT_AGAIN,
            ) from None
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
        try:
            return json.loads(self._content(name, ".json"))
        except (ValueError, RecursionError) as error:
            raise EvidenceError(
                f"the evidence {name!r} cannot be read: {error}",
                hint=AUDIT_AGAIN,
            ) from None

    def get_arrays(self, name: str) -> Arrays:
        """Read back what `put_arrays` kept; errors as `get_json`."""
        try:
            return arrays_of(self._content(name, ".npz"), MOST_BYTES)
        except DataError as error:
            raise EvidenceError(
                f"evidence {name!r} of {self.run_dir}: {error}",
                hint=f"{AUDIT_AGAIN} {self.run_dir}",
            ) from None

    def check(self) -> None:
        """Check that nothing was altered: chain, evidence, and the files and ledgers of the run.

        Raises:
            EvidenceError: naming the first thing that is not as it was.
        """
        self._chain.read()
        listed = {link.file for link in self._chain} | {CHAIN}
        for path in sorted(self.directory.iterdir()):
            if path.name not in listed:
                raise EvidenceError(f"{path} is not in the chain of evidence", hint=AUDIT_AGAIN)
        for link in self._chain:
            self._content(link.name, Path(link.file).suffix)
        self.check_run()

    def check_run(self) -> None:
        """Check that the run is still the one that the genesis binds.

        Raises:
            EvidenceError: naming the first file that is not as it was.
        """
        check_unchanged(self.run_dir, self.binds)

    def _begin(self, earlier: list[str]) -> None:
        binds = {**bound(self.run_dir), "earlier": earlier, "code": code_hash(CODE_OF_A_RUN)}
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EvidenceError(
                f"{self.directory} cannot be made: {error.strerror}",
                hint="check the folder's permissions and free space",
            ) from None
        self._chain.begin(binds)

    def _put(self, name: str, file: str, content: bytes) -> None:
        if not _NAME.fullmatch(name) or name == GENESIS:
            raise EvidenceError(
                f"{name!r} is not a name for evidence: only lower-case letters, digits and hyphens "
                "are"
            )
        if self.has(name):
            raise EvidenceError(f"evidence {name!r} exists already and is never replaced")
        try:
            write_atomically(self.directory / file, content)
        except OSError as error:
            raise EvidenceError(
                f"{self.directory / file} cannot be written: {error}",
                hint="check the folder's permissions and free space",
            ) from None
        self._chain.add(name, file, sha256(content))

    def _link(self, name: str) -> Link:
        for link in self._chain:
            if link.name == name:
                return link
        raise EvidenceError(
            f"there is no evidence {name!r} in {self.directory}",
            hint=AUDIT_AGAIN,
        )

    def _content(self, name: str, suffix: str) -> bytes:
        link = self._link(name)
        path = self.directory / link.file
        if path.suffix != suffix:
            raise EvidenceError(f"evidence {name!r} is kept as {link.file}, not as *{suffix}")
        try:
            content = read_regular(path, self.run_dir)
        except OSError as error:
            raise EvidenceError(
                f"{path} cannot be read ({error.strerror})",
                hint=AUDIT_AGAIN,
            ) from None
        if sha256(content) != link.sha256:
            raise EvidenceError(f"{path} was altered since it was gathered", hint=AUDIT_AGAIN)
        return content
