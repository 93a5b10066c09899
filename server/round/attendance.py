"""Finding the clients of a run: wait for them, let them introduce themselves, check them.

The clients present are looked up again before each round. A client that has gone is then not asked,
so it costs a round's deadline once and not every time; one that has come back is asked again, even
if Flower gives it another number.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from calyx.server.exchange import exchange
from calyx.server.roster import Member, Standing
from calyx.shared.config import Config
from calyx.shared.errors import ProtocolError, RoundError
from calyx.shared.protocol.identity import code_hash
from calyx.shared.protocol.messages import Introduction
from calyx.shared.protocol.refusals import read_failure

_POLL_S = 0.5
# How long a resumed run waits for all of its clients before it continues with enough of them.
_GRACE_S = 30.0
# How long a node may take to introduce itself in the middle of a run; the others wait for it.
_INTRODUCTION_S = 10.0
# The same for one that was silent before, and may be busy still, or dead.
_SECOND_CHANCE_S = 2.0


class Attendance:
    """Which clients are there, and on which of Flower's nodes.

    Args:
        grid: Flower's way to the clients.
        config: the run.
        approved: in a deployment, the name that each node was approved under: a device cannot
            take part as another one. None in a simulation.
        record_limits: in a deployment, how many records each client may declare, by name. None in
            a simulation, which made its clients itself.
    """

    def __init__(
        self,
        grid: Grid,
        config: Config,
        approved: Mapping[int, str] | None = None,
        record_limits: Mapping[str, int] | None = None,
    ) -> None:
        self._grid, self._config, self._approved = grid, config, approved
        self._record_limits = record_limits
        self._seen: set[int] = set()
        self._doubted: set[int] = set()
        self._has_begun = False
        self._problems: list[str] = []
        self.members: dict[str, Member] = {}
        self.node_ids: dict[str, int] = {}

    def gather(self) -> list[Member]:
        """Wait for the configured number of clients and have each introduce itself.

        Raises:
            RoundError: not enough clients came in time, or too few of them can be used.
        """
        federation = self._config.federation
        nodes = _wait_for_nodes(self._grid, federation.clients, federation.join_timeout_s)
        self._introduce(nodes, nodes, federation.round_timeout_s)
        self._has_begun = True
        usable = [m for m in self.members.values() if m.standing is Standing.ACTIVE]
        if len(usable) < federation.min_replies:
            problems = [*self._problems, *(m.reason for m in self.members.values() if m.reason)]
            raise RoundError(
                f"{len(usable)} of {federation.clients} clients can be used; a round needs "
                f"{federation.min_replies}: {'; '.join(problems[:3]) or 'no answer'}",
                hint="see the logs of the clients that were declined",
            )
        return list(self.members.values())

    def wait_for(self, clients: Sequence[str], least: int) -> list[str]:
        """Those of `clients` that are present now; waits until there are at least `least`.

        Raises:
            RoundError: fewer came within ``federation.join_timeout_s``.
        """
        began, timeout_s = time.monotonic(), self._config.federation.join_timeout_s
        # Only a run resumed after a crash knows none of its clients yet.
        grace_s = 0.0 if self._has_begun else min(_GRACE_S, timeout_s)
        self._has_begun = True
        while True:
            there = self._look(clients)
            waited = time.monotonic() - began
            if len(there) == len(clients) or (len(there) >= least and waited >= grace_s):
                return there
            if waited > timeout_s:
                away = [client for client in clients if client not in there]
                raise RoundError(
                    f"{len(there)} of the {least} clients that a round needs are connected, and no "
                    f"more joined within {timeout_s:g} s: {', '.join(away[:5])} away",
                    hint="start them, then resume this run",
                )
            time.sleep(_POLL_S)

    def doubt(self, clients: Sequence[str]) -> None:
        """Have clients introduce themselves before they count as present again.

        For those that were silent in a round: Flower lists a node for a minute after it dies, and
        each round in that minute would otherwise last until its deadline.
        """
        for client in clients:
            if (node := self.node_ids.pop(client, None)) is not None:
                self._seen.discard(node)
                self._doubted.add(node)

    def _look(self, clients: Sequence[str]) -> list[str]:
        nodes = set(self._grid.get_node_ids())
        # A client that comes back may have been restarted with other code or other records.
        self._seen &= nodes
        if unseen := nodes - self._seen:
            longest_s = _SECOND_CHANCE_S if unseen <= self._doubted else _INTRODUCTION_S
            timeout_s = min(longest_s, self._config.federation.round_timeout_s)
            self._introduce(sorted(unseen), nodes, timeout_s)
        return [client for client in clients if self.node_ids.get(client) in nodes]

    def _introduce(self, nodes: list[int], online: Collection[int], timeout_s: float) -> None:
        """Have nodes introduce themselves. Those that do not answer are asked again next time."""
        messages = [Message(RecordDict(), node, MessageType.QUERY) for node in nodes]
        for reply in exchange(self._grid, messages, timeout_s):
            node = reply.metadata.src_node_id
            if node not in nodes:
                continue  # Flower's own answer for a node that is gone
            self._seen.add(node)
            self._doubted.discard(node)
            try:
                member = _introduced(reply, self._config, self._record_limits)
                if self._approved is not None:
                    _check_name(member.client, self._approved.get(node))
            except ProtocolError as error:
                self._problems.append(error.full_text)
                continue
            before = self.node_ids.get(member.client, node)
            if before != node and before in online:
                self._problems.append(f"two clients call themselves {member.client!r}")
                continue
            self.members[member.client] = member
            self.node_ids[member.client] = node


def _wait_for_nodes(grid: Grid, wanted: int, timeout_s: float) -> list[int]:
    deadline = time.monotonic() + timeout_s
    while len(nodes := sorted(grid.get_node_ids())) < wanted:
        if time.monotonic() > deadline:
            raise RoundError(
                f"{len(nodes)} of {wanted} clients joined within {timeout_s:g} s",
                hint=(
                    "start the missing ones, lower federation.clients or raise "
                    "federation.join_timeout_s"
                ),
            )
        time.sleep(_POLL_S)
    return nodes


def _check_name(claimed: str, approved: str | None) -> None:
    if claimed != approved:
        raise ProtocolError(
            f"a device that was approved as {approved!r} calls itself {claimed!r}",
            hint="ask the owner of the device why, or revoke it",
        )


def _introduced(reply: Message, config: Config, record_limits: Mapping[str, int] | None) -> Member:
    if reply.has_error():
        raise ProtocolError(read_failure(reply).reason)
    who = Introduction.from_content(reply.content)
    told = config.tells_record_counts
    records = who.declared_records if told else config.privacy.nominal_records
    if records < 1:
        raise ProtocolError(f"client {who.client} declares no records")
    most = records if record_limits is None else record_limits.get(who.client, 0)
    if config.tells_record_counts and records > most:
        # Kept with the largest count that is accepted: nothing may weigh more than that.
        return Member(
            who.client,
            max(most, 1),
            Standing.DECLINED,
            f"client {who.client} declares {records} records and at most {most} are believed; if "
            "it has that many, set max_records in server.toml, or approve a new request of it "
            "with: calyx server approve DIR REQUEST --max-records N",
        )
    if who.code_hash != code_hash():
        return Member(
            who.client,
            records,
            Standing.DECLINED,
            f"client {who.client} runs other code (version {who.version}); use the same version",
        )
    return Member(who.client, records)
