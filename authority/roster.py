"""Who is enrolled: a file that the operator's commands write and the running authority reads.

``contributors.json``: name → enrolment request as approved, and whether it was revoked. The
authority takes changes over before each decision and writes them to its log, so an approval needs
no restart, and the log says when it took effect. A name, once used, is never given to other keys.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from authority.events import Event, Revoked
from authority.release import State, apply, enrol
from shared.errors import LedgerError, ProtocolError, ReleaseRefused
from shared.private_files import replace_file
from shared.protocol.contributor_keys import ContributorKeys


@dataclass(frozen=True)
class Member:
    """A line of the roster."""

    keys: ContributorKeys
    is_revoked: bool = False


class Roster:
    """The contributors' file in an authority's folder.

    Args:
        directory: the authority's folder.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "contributors.json"
        # Every replaced file has an inode of its own, so this notices each change.
        self._version: tuple[int, int] | None = None
        self._members: dict[str, Member] = {}

    def members(self) -> dict[str, Member]:
        """Everybody who was ever approved.

        Raises:
            LedgerError: the file is damaged.
        """
        try:
            status = self._path.stat()
            if (status.st_ino, status.st_mtime_ns) != self._version:
                raw = json.loads(self._path.read_text(encoding="utf-8"))
                self._members = {
                    name: Member(ContributorKeys.from_json(line["request"]), bool(line["revoked"]))
                    for name, line in raw.items()
                }
                self._version = status.st_ino, status.st_mtime_ns
        except FileNotFoundError:
            self._version, self._members = None, {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ProtocolError) as error:
            raise LedgerError(
                f"the list of contributors {self._path} is damaged; restore it from a copy"
            ) from error
        return dict(self._members)

    def approve(self, requests: Iterable[ContributorKeys]) -> None:
        """Enrol contributors; who is enrolled with the same keys already stays so.

        Raises:
            ReleaseRefused: a name or key is taken or was revoked. Nobody is enrolled then.
        """

        def change(members: dict[str, Member]) -> None:
            state = State()
            for event in _changes(state, members):
                state = apply(state, event)
            for keys in requests:
                if enrolled := enrol(state, keys):
                    state = apply(state, enrolled)
                    members[keys.name] = Member(keys)

        self._update(change)

    def revoke(self, name: str) -> None:
        """Take a contributor out, for good.

        Raises:
            ProtocolError: nobody of that name is enrolled.
        """

        def change(members: dict[str, Member]) -> None:
            if name not in members:
                raise ProtocolError(f"nobody is enrolled as {name!r}; look at {self._path}")
            members[name] = replace(members[name], is_revoked=True)

        self._update(change)

    def changes(self, state: State) -> list[Event]:
        """What the file says and `state` does not know yet.

        A line that contradicts the log (other keys for a known name) revokes that contributor.
        """
        return list(_changes(state, self.members()))

    def _update(self, change: Callable[[dict[str, Member]], None]) -> None:
        with _exclusive(self._path.with_name("contributors.lock")):
            members = self.members()
            change(members)
            raw = {
                name: {"request": member.keys.to_json(), "revoked": member.is_revoked}
                for name, member in sorted(members.items())
            }
            replace_file(self._path, json.dumps(raw, indent=1).encode())


def _changes(state: State, members: dict[str, Member]) -> Iterator[Event]:
    for name, member in members.items():
        try:
            enrolled = enrol(state, member.keys) if name not in state.revoked else None
        except ReleaseRefused:
            yield Revoked(name)
            continue
        if enrolled is not None:
            state = apply(state, enrolled)
            yield enrolled
        if member.is_revoked and name not in state.revoked:
            yield Revoked(name)
    for name in state.enrolled.keys() - members.keys() - state.revoked:
        yield Revoked(name)


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
