"""Send messages and receive the replies one by one, until a deadline.

Flower's own ``send_and_receive`` returns only when all replies are there and looks every three
seconds. Here each reply is handed on as soon as it arrives, so that it can be added up and let
go, and a round costs little beyond its training.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from flwr.app import Message
from flwr.serverapp import Grid

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.002, 0.25


def exchange(grid: Grid, messages: Iterable[Message], timeout_s: float) -> Iterator[Message]:
    """Yield replies in the order of their arrival; stop when all are there or time is up.

    Replies that come after the deadline are never seen: their senders count as late.
    """
    deadline = time.monotonic() + timeout_s
    waiting = {message_id for message_id in grid.push_messages(messages) if message_id}
    pause = _FIRST_PAUSE_S
    while waiting:
        replies = list(grid.pull_messages(waiting))
        # A reply that took its client past the deadline is late even if it is here now.
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
