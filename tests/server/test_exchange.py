"""Questions to clients: a no is the client's own answer, not one that Flower gives for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from flwr.app import Error, Message, RecordDict

from calyx.server.exchange import ask_clients
from calyx.shared.errors import PolicyViolation
from calyx.shared.protocol.refusals import error_reply
from calyx.simulations.engines.grid import take_identity


class Answers:
    """A grid on which each node answers at once, in its own way."""

    def __init__(self, ways: dict[int, Any]) -> None:
        self._ways, self._waiting = ways, list[Message]()

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        sent = []
        for number, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = f"m{number}"
            sent.append(f"m{number}")
            way = self._ways[message.metadata.dst_node_id]
            if way is not None:
                self._waiting.append(way(message))
        return sent

    def pull_messages(self, ids: Iterable[str]) -> list[Message]:
        come, self._waiting = self._waiting, []
        return come


@pytest.fixture(autouse=True)
def _identity() -> None:
    take_identity()


def test_only_a_clients_own_refusal_is_a_no() -> None:
    ways = {
        2: lambda m: Message(RecordDict(), reply_to=m),
        3: lambda m: error_reply(PolicyViolation("not here"), m),
        4: lambda m: Message(Error(3, "the node is unavailable"), reply_to=m),
        5: None,
    }
    questions = {name: RecordDict() for name in "abcd"}
    node_ids = dict(zip("abcd", ways, strict=True))
    agreed, refused = ask_clients(Answers(ways), questions, node_ids, "query.x", 0.1)  # type: ignore[arg-type]
    assert agreed == {"a"}
    assert [(said.client, "not here" in said.reason) for said in refused] == [("b", True)]


def test_nobody_to_ask_is_no_message() -> None:
    assert ask_clients(Answers({}), {}, {}, "query.x", 60.0) == (set(), [])  # type: ignore[arg-type]
