"""Send messages and receive the replies one by one, until a deadline.

Flower's own ``send_and_receive`` returns only when all replies are there and looks every three
seconds. Here each reply is passed on as soon as it arrives, so that it can be added up and
released, and a round costs little beyond its training.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from calyx.server.roster import ClientOutcome
from calyx.shared.protocol.refusals import is_answer, read_failure

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.002, 0.25


def exchange(grid: Grid, messages: Iterable[Message], timeout_s: float) -> Iterator[Message]:
    """Yield replies in order of arrival; stop when all are there or time is up.

    Replies that come after the deadline are never seen: their senders count as late.
    """
    deadline = time.monotonic() + timeout_s
    waiting = {message_id for message_id in grid.push_messages(messages) if message_id}
    pause = _FIRST_PAUSE_S
    while waiting:
        replies = list(grid.pull_messages(waiting))
        # A reply that its client gave after the deadline is late even if it is here now.
        if time.monotonic() > deadline:
            return
        for reply in replies:
            waiting.discard(reply.metadata.reply_to_message_id)
            yield reply
        if replies:
            pause = _FIRST_PAUSE_S
        else:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)


def ask_clients(
    grid: Grid,
    questions: Mapping[str, RecordDict],
    node_ids: Mapping[str, int],
    kind: str,
    timeout_s: float,
) -> tuple[set[str], list[ClientOutcome]]:
    """Ask clients a question; an error means no and anything else means yes.

    Args:
        grid: Flower's way to them.
        questions: what each client is asked.
        node_ids: of each client.
        kind: of the messages.
        timeout_s: how long to wait for the answers.

    Returns:
        The clients that said yes, and those that said no with the reason. A client that does not
        answer is in neither; an answer that Flower gives for a node that is gone does not count.
    """
    asked = {node_ids[client]: client for client in questions}
    messages = [Message(questions[client], node, kind) for node, client in asked.items()]
    agreed, refused = set[str](), list[ClientOutcome]()
    for reply in exchange(grid, messages, timeout_s) if messages else ():
        client = asked.get(reply.metadata.src_node_id)
        if client is None or not is_answer(reply):
            continue
        if reply.has_error():
            refused.append(ClientOutcome(client, read_failure(reply).reason))
        else:
            agreed.add(client)
    return agreed, refused
