"""Finding the clients of a run: wait for them, let them introduce themselves, check them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from server.exchange import exchange
from server.rounds import Member, Standing
from shared.config import Config
from shared.errors import ProtocolError, RoundError
from shared.protocol.identity import code_hash
from shared.protocol.messages import Introduction
from shared.protocol.refusals import read_failure

_POLL_S = 0.5


@dataclass(frozen=True)
class Gathering:
    """The clients that are there.

    Attributes:
        members: one entry a client that introduced itself.
        node_ids: Flower's node of each client.
    """

    members: list[Member]
    node_ids: dict[str, int]


def gather(grid: Grid, config: Config, approved: Mapping[int, str] | None = None) -> Gathering:
    """Wait for the configured number of clients and ask each who it is.

    Args:
        grid: Flower's way to the clients.
        config: the run.
        approved: in a deployment, the name that each node was approved under: a device cannot
            take part as another one. None in a simulation.

    Raises:
        RoundError: not enough clients came in time, or too few of them can be used.
    """
    wanted = config.federation.clients
    nodes = _wait_for_nodes(grid, wanted, config.federation.join_timeout_s)
    messages = [Message(RecordDict(), node, MessageType.QUERY) for node in nodes]
    members: dict[str, Member] = {}
    node_ids: dict[str, int] = {}
    problems: list[str] = []
    for reply in exchange(grid, messages, config.federation.round_timeout_s):
        try:
            member = _introduced(reply, config)
            if approved is not None:
                _check_name(member.client, approved.get(reply.metadata.src_node_id))
        except ProtocolError as error:
            problems.append(str(error))
            continue
        if member.client in members:
            problems.append(f"two clients call themselves {member.client!r}")
            continue
        members[member.client] = member
        node_ids[member.client] = reply.metadata.src_node_id
    usable = [m for m in members.values() if m.standing is Standing.ACTIVE]
    if len(usable) < config.federation.min_replies:
        problems += [m.reason for m in members.values() if m.reason]
        raise RoundError(
            f"{len(usable)} of {wanted} clients can be used, a round needs "
            f"{config.federation.min_replies}: {'; '.join(problems[:3]) or 'no answer'}"
        )
    return Gathering(list(members.values()), node_ids)


def _wait_for_nodes(grid: Grid, wanted: int, timeout_s: float) -> list[int]:
    deadline = time.monotonic() + timeout_s
    while len(nodes := sorted(grid.get_node_ids())) < wanted:
        if time.monotonic() > deadline:
            raise RoundError(
                f"{len(nodes)} of {wanted} clients came within {timeout_s:g} s; start the missing "
                "ones, lower federation.clients or raise federation.join_timeout_s"
            )
        time.sleep(_POLL_S)
    return nodes


def _check_name(claimed: str, approved: str | None) -> None:
    if claimed != approved:
        raise ProtocolError(
            f"a device that was approved as {approved!r} calls itself {claimed!r}; see to it, or "
            "revoke it"
        )


def _introduced(reply: Message, config: Config) -> Member:
    if reply.has_error():
        raise ProtocolError(read_failure(reply).reason)
    who = Introduction.from_content(reply.content)
    counted = not config.is_private or config.privacy.record_counts == "public"
    records = who.declared_records if counted else config.privacy.nominal_records
    if records < 1:
        raise ProtocolError(f"client {who.client} declares no records")
    if who.code_hash != code_hash():
        return Member(
            who.client,
            records,
            Standing.DECLINED,
            f"client {who.client} runs other code (version {who.version}); use the same version",
        )
    return Member(who.client, records)
