"""Who is enrolled: a file that the operator's commands write and the running authority reads.

``contributors.json``: name → public keys, nonces of the requests that were approved, and whether
it was revoked. The authority adopts changes before each decision and writes them to its log, so an
approval needs no restart, and the log says when it took effect. A name, once used, is never given
to other keys, nor is one that looks like it; a request is good for one approval, even after a
revocation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Any

from calyx.authority.log.events import Event, Revoked
from calyx.authority.release import State, apply, enrol
from calyx.shared.errors import EnrolmentError, LedgerError, ProtocolError, ReleaseRefused
from calyx.shared.host.private_files import replace_file
from calyx.shared.host.process_lock import exclusive_waiting
from calyx.shared.protocol.enrolment import EnrolmentRequest, check_unused, fingerprint
from calyx.shared.protocol.sealed.contributor_keys import ContributorKeys


@dataclass(frozen=True)
class Enrolment:
    """One contributor's entry.

    Attributes:
        keys: for sealed sums.
        is_revoked: whether it no longer counts.
        node_key: the device's key at its server, OpenSSH format; empty in a simulation, and for
            contributors that were enrolled before the authority kept it.
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


class Enrolments:
    """The contributors' file in an authority's folder.

    Args:
        directory: the authority's folder.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "contributors.json"
        # Every replaced file has an inode of its own, so this notices each change.
        self._version: tuple[int, int] | None = None
        self._enrolments: dict[str, Enrolment] = {}

    def by_name(self) -> dict[str, Enrolment]:
        """Every contributor that was ever approved.

        Raises:
            LedgerError: the file is damaged.
        """
        try:
            status = self._path.stat()
            if (status.st_ino, status.st_mtime_ns) != self._version:
                raw = json.loads(self._path.read_text(encoding="utf-8"))
                self._enrolments = {name: _enrolment(line) for name, line in raw.items()}
                self._version = status.st_ino, status.st_mtime_ns
        except FileNotFoundError:
            self._version, self._enrolments = None, {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ProtocolError) as error:
            raise LedgerError(
                f"the list of contributors {self._path} is damaged",
                hint="restore it from a copy",
            ) from error
        return dict(self._enrolments)

    def approve(self, contributors: Iterable[ContributorKeys]) -> None:
        """Enrol the contributors of a simulation, which are no one's devices and send no requests.

        A contributor already enrolled with the same keys stays enrolled.

        Raises:
            ReleaseRefused: a name or key is taken or was revoked. None of them is enrolled then.
        """

        def change(enrolments: dict[str, Enrolment]) -> None:
            state = _state_of(enrolments)
            for keys in contributors:
                if enrolled := enrol(state, keys):
                    state = apply(state, enrolled)
                    enrolments[keys.name] = Enrolment(keys)

        self._update(change)

    def enrol(self, request: EnrolmentRequest) -> None:
        """Enrol the device of a request whose signatures, age and fingerprint were checked.

        Raises:
            EnrolmentError: the request was used before, its device is enrolled, its node key is
                another's, or its name looks like another one.
            ReleaseRefused: the name or a key is taken or was revoked.
        """

        def change(enrolments: dict[str, Enrolment]) -> None:
            _check_new(enrolments, request)
            enrol(_state_of(enrolments), request.contributor)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            enrolments[request.name] = Enrolment(
                request.contributor,
                node_key=request.node_key,
                nonces=(request.nonce,),
                approved_at=now,
            )

        self._update(change)

    def revoke(self, name: str) -> None:
        """Take a contributor out, for good.

        Raises:
            ProtocolError: no contributor of that name is enrolled.
        """

        def change(enrolments: dict[str, Enrolment]) -> None:
            if name not in enrolments:
                raise ProtocolError(
                    f"no device is enrolled as {name!r}",
                    hint=f"calyx authority status lists the devices; they are kept in {self._path}",
                )
            enrolments[name] = replace(enrolments[name], is_revoked=True)

        self._update(change)

    def changes(self, state: State) -> list[Event]:
        """What the file says that `state` does not know yet.

        A line that contradicts the log (other keys for a known name) revokes that contributor.
        """
        return list(_changes(state, self.by_name()))

    def _update(self, change: Callable[[dict[str, Enrolment]], None]) -> None:
        with exclusive_waiting(self._path.with_name("contributors.lock")):
            enrolments = self.by_name()
            change(enrolments)
            raw = {
                name: {
                    "request": enrolment.keys.to_json(),
                    "revoked": enrolment.is_revoked,
                    "node_key": enrolment.node_key,
                    "nonces": enrolment.nonces,
                    "approved_at": enrolment.approved_at,
                }
                for name, enrolment in sorted(enrolments.items())
            }
            replace_file(self._path, json.dumps(raw, indent=1).encode())


def _enrolment(line: Mapping[str, Any]) -> Enrolment:
    return Enrolment(
        ContributorKeys.from_json(line["request"]),
        bool(line["revoked"]),
        str(line.get("node_key", "")),
        tuple(map(str, line.get("nonces", ()))),
        str(line.get("approved_at", "")),
    )


def _check_new(enrolments: Mapping[str, Enrolment], request: EnrolmentRequest) -> None:
    check_unused(request, enrolments, revoke="calyx authority revoke DIR")
    before = enrolments.get(request.name)
    # A line without a node key is from a version that kept none: the request completes it.
    is_whole = before is not None and before.node_key and not before.is_revoked
    if before is not None and is_whole and before.keys == request.contributor:
        raise EnrolmentError(
            f"{request.name!r} is already enrolled; nothing was changed",
            hint=(
                "if you did not approve it, revoke it with: calyx authority revoke DIR "
                f"{request.name}"
            ),
        )


def _state_of(enrolments: Mapping[str, Enrolment]) -> State:
    return reduce(apply, _changes(State(), enrolments), State())


def _changes(state: State, enrolments: Mapping[str, Enrolment]) -> Iterator[Event]:
    for name, enrolment in enrolments.items():
        try:
            enrolled = enrol(state, enrolment.keys) if name not in state.revoked else None
        except ReleaseRefused:
            yield Revoked(name)
            continue
        if enrolled is not None:
            state = apply(state, enrolled)
            yield enrolled
        if enrolment.is_revoked and name not in state.revoked:
            yield Revoked(name)
    for name in state.enrolled.keys() - enrolments.keys() - state.revoked:
        yield Revoked(name)
