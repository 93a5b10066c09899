"""Which run a folder holds, whatever the folder is called today.

A run is known in its clients' ledgers, at the key authority and in its evidence by one name. That
name is drawn when the folder is made and kept in it, so that a folder can be renamed, moved or
copied without becoming another run: a resumed round would else be charged a second time.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from calyx.server.state.journal import RunEvents
from calyx.shared.errors import RunError
from calyx.shared.host.atomic_write import write_atomically
from calyx.shared.protocol.signatures.signed import is_hex

FILE_NAME = "run.json"
# With the number and the hyphen it has to fit the 100 characters of a name in a message.
_MOST_CHARACTERS = 80
_DIGITS = 16


@dataclass(frozen=True)
class RunIdentity:
    """`run.json` of a run folder.

    Attributes:
        name: what the folder was called when it was made, for people.
        number: 64 random bits, hex; empty for a run of an earlier version.
    """

    name: str
    number: str

    @classmethod
    def draw(cls, folder: Path) -> RunIdentity:
        """A new one, for a run that begins in `folder`."""
        shown = "".join(c if c.isprintable() else "_" for c in folder.name)
        # What a folder's name has in bytes that are no text cannot be sent either.
        text = shown.encode("utf-8", "replace").decode()
        return cls(text[:_MOST_CHARACTERS] or "run", secrets.token_hex(_DIGITS // 2))

    @property
    def run(self) -> str:
        """The run's name in ledgers, messages and evidence."""
        return f"{self.name}-{self.number}" if self.number else self.name

    def store(self, folder: Path) -> None:
        """Write it down, once and for good."""
        write_atomically(folder / FILE_NAME, (json.dumps(asdict(self), indent=1) + "\n").encode())


def identity_of(folder: Path) -> RunIdentity:
    """The identity of the run in `folder`.

    A folder of an earlier version has none. Its run was called as the folder was when it was last
    begun or resumed, which the journal's ``start`` event tells.

    Raises:
        RunError: the file cannot be used. Another name would charge every ledger again.
    """
    path = folder / FILE_NAME
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        identity = RunIdentity(**stored)
        fits = 0 < len(identity.name) <= _MOST_CHARACTERS and identity.name.isprintable()
        if not fits or not (identity.number == "" or is_hex(identity.number, _DIGITS)):
            raise ValueError("no identity of a run")
    except FileNotFoundError:
        return RunIdentity(_name_in_journal(folder) or folder.name, "")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: {error}", hint="restore it from a copy") from None
    return identity


def _name_in_journal(folder: Path) -> str:
    try:
        return Path(str(RunEvents.read(folder).start.get("run_dir", ""))).name
    except RunError:
        return ""
