"""Which devices may take part: `nodes.json`, and Flower's own list kept equal to it.

A request is approved once: its nonce is remembered. A name belongs to its first keys for good, and
no name looks like another, so that a name in a run's report always means one device. Approving and
revoking also work while the server is down; when it is up, Flower's list is changed at once.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from calyx.server.deployment.control import Control
from calyx.server.deployment.folder import ServerFolder
from calyx.shared.errors import EnrolmentError, LedgerError, UsageError
from calyx.shared.host.private_files import replace_file
from calyx.shared.host.process_lock import exclusive
from calyx.shared.protocol.enrolment import EnrolmentRequest, check_unused, p384_key, read_request
from calyx.shared.protocol.flower import internals as flower


@dataclass(frozen=True)
class ApprovedNode:
    """A device that was approved.

    Attributes:
        name: its name in runs and reports.
        node_key: its public key, OpenSSH format.
        fingerprint: of its request, as shown to people.
        nonces: of the requests that were approved.
        approved_at: when first.
        revoked_at: when it was revoked; empty if it was not.
        node_id: Flower's number; 0 until the server knows it.
        max_records: the most records it may declare; 0: as many as the server's settings say.
    """

    name: str
    node_key: str
    fingerprint: str
    nonces: tuple[str, ...]
    approved_at: str
    revoked_at: str = ""
    node_id: int = 0
    max_records: int = 0

    @property
    def is_revoked(self) -> bool:
        """Whether it may no longer take part."""
        return bool(self.revoked_at)


def approved_nodes(folder: ServerFolder) -> dict[str, ApprovedNode]:
    """Every device that was ever approved, by name.

    Raises:
        LedgerError: the file is damaged.
    """
    try:
        raw = json.loads(folder.nodes_path.read_text(encoding="utf-8"))
        return {n["name"]: ApprovedNode(**{**n, "nonces": tuple(n["nonces"])}) for n in raw}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LedgerError(
            f"the list of devices {folder.nodes_path} is damaged",
            hint="restore it from a copy",
        ) from error


def record_limits(folder: ServerFolder) -> dict[str, int]:
    """How many records each device may declare, by name: what a vote can weigh at most.

    Raises:
        LedgerError, UsageError: as `approved_nodes` and `ServerFolder.settings`.
    """
    most = folder.settings().max_records
    return {node.name: node.max_records or most for node in approved_nodes(folder).values()}


def approve(
    folder: ServerFolder, request_text: str, *, fingerprint: str, max_records: int | None = None
) -> ApprovedNode:
    """Let the device of a request take part.

    Args:
        folder: of the server.
        request_text: of the device's enrolment request.
        fingerprint: as the device's owner sees it; not taken from the request.
        max_records: the most records it may declare; None for what the settings say.

    Raises:
        EnrolmentError: the request was altered, is too old, has another fingerprint or was used
            before, its name or key is taken, or its name looks like that of another device.
        UsageError: there is no server in this folder, or `max_records` is below 1.
    """
    folder.settings()
    if max_records is not None and max_records < 1:
        raise UsageError(
            f"max_records is {max_records}",
            hint="a device declares at least one record; give 1 or more",
        )
    request = read_request(request_text)
    request.check_age()
    request.check_fingerprint(fingerprint)
    with _changing(folder):
        nodes = approved_nodes(folder)
        node = replace(_approved(nodes, request), max_records=max_records or 0)
        _store(folder, nodes | {node.name: node})
        if folder.running_pid() is not None:
            reconcile(folder)
            node = approved_nodes(folder)[node.name]
    return node


def revoke(folder: ServerFolder, name: str) -> ApprovedNode:
    """Take a device out for good; at once if the server is up.

    Raises:
        UsageError: no device of that name was approved.
    """
    folder.settings()
    with _changing(folder):
        nodes = approved_nodes(folder)
        if name not in nodes:
            known = ", ".join(sorted(nodes)) or "none"
            raise UsageError(f"no device {name!r} was approved", hint=f"name one that was: {known}")
        node = nodes[name]
        if not node.is_revoked:
            node = replace(node, revoked_at=_now())
            _store(folder, nodes | {name: node})
        if folder.running_pid() is not None:
            reconcile(folder)
    return node


def reconcile(folder: ServerFolder) -> None:
    """Make Flower's list of nodes match `nodes.json`, and learn the node ids."""
    nodes = approved_nodes(folder)
    with Control(folder) as control:
        registered = {node.public_key: node for node in control.nodes()}
        wanted = {}
        for node in nodes.values():
            key = p384_key(node.node_key)
            raw = flower.public_key_to_bytes(key)
            known = registered.pop(raw, None)
            if node.is_revoked:
                if known is not None:
                    control.unregister(known.node_id)
                wanted[node.name] = node
                continue
            node_id = known.node_id if known is not None else control.register(key)
            wanted[node.name] = replace(node, node_id=node_id)
        for stranger in registered.values():
            control.unregister(stranger.node_id)
    if wanted != nodes:
        _store(folder, wanted)


def _approved(nodes: dict[str, ApprovedNode], request: EnrolmentRequest) -> ApprovedNode:
    check_unused(request, nodes, revoke="calyx server revoke DIR")
    before = nodes.get(request.name)
    if before is None:
        return ApprovedNode(
            request.name, request.node_key, request.fingerprint, (request.nonce,), _now()
        )
    if before.is_revoked:
        raise EnrolmentError(
            f"{request.name!r} was revoked at {before.revoked_at}",
            hint="enrol the device under a new name, in a new folder",
        )
    if before.node_key != request.node_key:
        raise EnrolmentError(
            f"{request.name!r} is the name of another device",
            hint="choose a new name, or revoke the other one if it is gone",
        )
    return replace(before, nonces=(*before.nonces, request.nonce))


def _changing(folder: ServerFolder) -> AbstractContextManager[None]:
    return exclusive(
        folder.directory / "nodes.lock", "another command changes the list of devices", "try again"
    )


def _store(folder: ServerFolder, nodes: dict[str, ApprovedNode]) -> None:
    raw = [asdict(node) for _, node in sorted(nodes.items())]
    replace_file(folder.nodes_path, json.dumps(raw, indent=1).encode())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
