"""Hands an answer over in parts, and gives it up when its caller stops reading.

A call of a few bytes may have an answer of many megabytes. Handed over as a whole, it is kept until
it is read, and uvicorn waits for that for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Event = MutableMapping[str, Any]
Send = Callable[[Event], Awaitable[None]]


def in_parts(send: Send, part_bytes: int, pause_s: float) -> Send:
    """What an ASGI application sends to, in place of `send`.

    Args:
        send: takes an event when those before it have been read, except for a few kilobytes.
        part_bytes: size of a part.
        pause_s: how long one may take. After that nothing more is handed over: the call ends
            without the rest of its answer, which ends the connection.
    """
    has_stalled = False

    async def part(event: Event) -> None:
        nonlocal has_stalled
        if has_stalled:
            return
        try:
            await asyncio.wait_for(send(event), pause_s)
        except TimeoutError:
            has_stalled = True

    async def parts(event: Event) -> None:
        body = event.get("body", b"")
        if event["type"] != "http.response.body" or len(body) <= part_bytes:
            await part(event)
            return
        for first in range(0, len(body), part_bytes):
            is_last = first + part_bytes >= len(body)
            more = not is_last or event.get("more_body", False)
            await part({**event, "body": body[first : first + part_bytes], "more_body": more})

    return parts
