"""Who is enrolled: a file that the operator's commands write and the running authority reads.

``contributors.json``: name → public keys, nonces of the requests that were approved, and whether
it was revoked. The authority takes changes over before each decision and writes them to its log, so
an approval needs no restart, and the log says when it took effect. A name, once used, is never
given to other keys, nor is one that looks like it; a request is good for one approval, also after
a revocation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Any

from calyx.authority.events import Event, Revoked
from calyx.authority.release import State, apply, enrol
from calyx.shared.errors import EnrolmentError, LedgerError, ProtocolError, ReleaseRefused
from calyx.shared.host.private_files import replace_file
from calyx.shared.host.process_lock import exclusive_waiting
from calyx.shared.protocol.enrolment import EnrolmentRequest, check_unused, fingerprint
from calyx.shared.protocol.sealed.contributor_keys import ContributorKeys


@dataclass(frozen=True)
class Member:
    """A line of the roster.

    Attributes:
        keys: for sealed sums.
        is_revoked: whether it counts no more.
        node_key: the device's key at its server, OpenSSH format; empty in a simulation, and for
            who was enrolled before the authority kept it.
        nonces: of the requests that were approved.
        approved_at: when; empty where `node_key` is.
    """

    keys: ContributorKeys
    is_revoked: bool = False
    node_key: str = ""
    nonces: tuple[str, ...] = ()
    approved_at: str = ""

    @property
    def fingerprint(self) -> str:
        """As the device's owner sees it; empty where there is no `node_key`."""
        return fingerprint(self.keys.name, self.node_key, self.keys) if self.node_key else ""


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
                self._members = {name: _member(line) for name, line in raw.items()}
                self._version = status.st_ino, status.st_mtime_ns
        except FileNotFoundError:
            self._version, self._members = None, {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ProtocolError) as error:
            raise LedgerError(
                f"the list of contributors {self._path} is damaged; restore it from a copy"
            ) from error
        return dict(self._members)

    def approve(self, contributors: Iterable[ContributorKeys]) -> None:
        """Enrol the contributors of a simulation, which are nobody's devices and send no requests.

        Who is enrolled with the same keys already stays so.

        Raises:
            ReleaseRefused: a name or key is taken or was revoked. Nobody is enrolled then.
        """

        def change(members: dict[str, Member]) -> None:
            state = _state_of(members)
            for keys in contributors:
                if enrolled := enrol(state, keys):
                    state = apply(state, enrolled)
                    members[keys.name] = Member(keys)

        self._update(change)

    def enrol(self, request: EnrolmentRequest) -> None:
        """Enrol the device of a request whose signatures, age and fingerprint were checked.

        Raises:
            EnrolmentError: the request was used before, its device is enrolled, its node key is
                another's, or its name looks like another one.
            ReleaseRefused: the name or a key is taken or was revoked.
        """

        def change(members: dict[str, Member]) -> None:
            _check_new(members, request)
            enrol(_state_of(members), request.contributor)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            members[request.name] = Member(
                request.contributor,
                node_key=request.node_key,
                nonces=(request.nonce,),
                approved_at=now,
            )

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
        with exclusive_waiting(self._path.with_name("contributors.lock")):
            members = self.members()
            change(members)
            raw = {
                name: {
                    "request": member.keys.to_json(),
                    "revoked": member.is_revoked,
                    "node_key": member.node_key,
                    "nonces": member.nonces,
                    "approved_at": member.approved_at,
                }
                for name, member in sorted(members.items())
            }
            replace_file(self._path, json.dumps(raw, indent=1).encode())


def _member(line: Mapping[str, Any]) -> Member:
    return Member(
        ContributorKeys.from_json(line["request"]),
        bool(line["revoked"]),
        str(line.get("node_key", "")),
        tuple(map(str, line.get("nonces", ()))),
        str(line.get("approved_at", "")),
    )


def _check_new(members: Mapping[str, Member], request: EnrolmentRequest) -> None:
    check_unused(request, members, revoke="calyx authority revoke DIR")
    before = members.get(request.name)
    # A line without a node key is of a version that kept none: the request completes it.
    is_whole = before is not None and before.node_key and not before.is_revoked
    if before is not None and is_whole and before.keys == request.contributor:
        raise EnrolmentError(
            f"{request.name!r} is enrolled already and nothing was changed; if you did not approve "
            f"it, revoke it with: calyx authority revoke DIR {request.name}"
        )


def _state_of(members: Mapping[str, Member]) -> State:
    return reduce(apply, _changes(State(), members), State())


def _changes(state: State, members: Mapping[str, Member]) -> Iterator[Event]:
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
