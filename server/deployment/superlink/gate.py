"""The gate in front of Flower's SuperLink: it checks each call before any of its body is read.

The SuperLink answers devices, operators and ServerApps on one port. On its own it lets anyone who
reaches that port register devices, list them and start runs; it reads a body of any length before
it asks who sent it; it takes a device's word for a message's sender; and a device's signature over
the time is valid for every call of the next five minutes. Here

* a device's call is let in if its key is registered and it signed exactly this call, once;
* everything else needs the secret that only processes of this server's user can read;
* a body is read after that, up to what the call needs, and while there is room for it;
* a device may hand over replies of its own, and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from calyx.server.deployment.superlink.answer_parts import Event, Send, in_parts
from calyx.shared.errors import ProtocolError
from calyx.shared.protocol.flower.interceptors import SECRET_HEADER
from calyx.shared.protocol.flower.superlink import FLEET_CALLS, is_own_reply
from calyx.shared.protocol.signatures.call import CallSignature

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEALTH = "/health"
_ACTIVATE, _PUSH_MESSAGES, _PUSH_OBJECT = (
    f"/v1/fleet/{name}" for name in ("activate-node", "push-messages", "push-object")
)
# Code that builds an address from it may read anything else there as a piece of the path.
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")
# Flower's own window for the time in a signature, and how far two clocks may differ.
_OLDEST_S, _AHEAD_S = 305.0, 5.0
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Limits:
    """What is accepted of a device's call.

    Attributes:
        object_bytes: one object: a part of 5 MB of an array, or a whole sealed update.
        tree_bytes: the list of the objects of a message.
        other_bytes: any other call.
        device_bytes: bodies of one device at a time. Two objects go at once.
        all_bytes: bodies of all devices at a time; the SuperLink needs some three times as much.
        pause_s: longest time without a byte.
        least_bytes_per_s: a body that comes more slowly is given up.
        calls: of one device within the window of a signature.
        calls_at_once: of one device. It makes three: two for objects, and its heartbeat.
        answer_part_bytes: an answer is handed over in parts of this size, each taken within
            `pause_s`.
    """

    object_bytes: int = 16 * 2**20
    tree_bytes: int = 2**20
    other_bytes: int = 64 * 2**10
    device_bytes: int = 40 * 2**20
    all_bytes: int = 256 * 2**20
    pause_s: float = 20.0
    least_bytes_per_s: int = 16 * 2**10
    calls: int = 2**16
    calls_at_once: int = 6
    answer_part_bytes: int = 64 * 2**10

    def of(self, path: str) -> int:
        """Longest body of a call, bytes."""
        return {_PUSH_OBJECT: self.object_bytes, _PUSH_MESSAGES: self.tree_bytes}.get(
            path, self.other_bytes
        )


class _Refused(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Gate:
    """An ASGI application around that of the SuperLink.

    Args:
        app: the SuperLink.
        node_of: Flower's number of the device with a public key; None for a stranger's.
        secret: of this server's own processes.
        limits: of bodies.
    """

    def __init__(
        self,
        app: Application,
        node_of: Callable[[bytes], int | None],
        secret: str,
        limits: Limits | None = None,
    ) -> None:
        if not secret:
            raise ValueError("an empty secret would let anyone in")
        self._app, self._node_of, self._secret = app, node_of, secret.encode()
        self._limits = limits or Limits()
        self._held: dict[int, int] = {}
        self._calls: dict[int, dict[bytes, tuple[float, datetime]]] = {}
        self._forgotten: dict[int, datetime] = {}
        self._under_way: Counter[int] = Counter()
        self._began = time.time()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a call in, or answer it here."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        path, is_post = scope["path"], scope["method"] == "POST"
        pairs = [(k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in scope["headers"]]
        headers = dict(pairs)
        try:
            if len(headers) < len(pairs):
                # Of two, Flower would read the other one.
                raise _Refused(400, "a header came twice")
            if not _HOST.fullmatch(headers.get("host", "-")):
                raise _Refused(400, "the call does not say to which host it goes")
            if is_post and path in FLEET_CALLS:
                await self._for_device(path, headers, scope, receive, send)
            elif path == _HEALTH and scope["method"] in ("GET", "HEAD"):
                await self._app(scope, _nothing, send)
            elif self._is_own(headers):
                await self._app(scope, receive, send)
            else:
                raise _Refused(403, "this call is for the server's own processes")
        except _Refused as refusal:
            await _answer(send, refusal)

    def _is_own(self, headers: dict[str, str]) -> bool:
        shown = headers.get(SECRET_HEADER, "").encode("latin-1")
        return hmac.compare_digest(shown, self._secret)

    async def _for_device(
        self, path: str, headers: dict[str, str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        signature, node = await self._caller(path, headers)
        length = headers.get("content-length", "")
        if "transfer-encoding" in headers or not length.isdigit():
            raise _Refused(411, "the call does not say how long it is")
        if int(length) > self._limits.of(path):
            raise _Refused(413, f"the call is too long; {self._limits.of(path)} bytes are allowed")
        with self._one_more_of(node), self._held_for(node) as take:
            body = await self._body(receive, int(length), take)
            if hashlib.sha256(body).hexdigest() != signature.body_digest:
                raise _Refused(401, "the call is not the one that was signed")
            if path == _PUSH_MESSAGES and not is_own_reply(body, node):
                raise _Refused(400, "a device hands over one reply of its own, and nothing else")
            answer = in_parts(send, self._limits.answer_part_bytes, self._limits.pause_s)
            await self._app(scope, _replaying(body, receive), answer)

    async def _caller(self, path: str, headers: dict[str, str]) -> tuple[CallSignature, int]:
        """Which registered device calls."""
        try:
            signature = CallSignature.read(path, headers)
        except ProtocolError as error:
            raise _Refused(401, error.full_text) from None
        age_s = signature.age_s
        if not -_AHEAD_S < age_s < _OLDEST_S:
            raise _Refused(401, "the call was signed too long ago, or is from the future")
        if time.time() - age_s < self._began:
            # Calls made before this process began are not remembered.
            raise _Refused(503, "the server has only just started")
        node = await asyncio.to_thread(self._node_of, signature.public_key)
        if node is None:
            # A device that asks to be let in takes 401 for clocks that differ.
            status = 403 if path == _ACTIVATE else 401
            raise _Refused(status, "the key of this call is not registered")
        if not await asyncio.to_thread(signature.is_genuine):
            raise _Refused(401, "the call was not signed with its key")
        self._once(node, signature)
        return signature, node

    def _once(self, node: int, signature: CallSignature) -> None:
        calls, now = self._calls.setdefault(node, {}), time.monotonic()
        signed_at = datetime.fromisoformat(signature.signed_at)
        while calls:
            oldest = next(iter(calls))
            taken_at, was_signed_at = calls[oldest]
            if now - taken_at < _OLDEST_S + _AHEAD_S:
                break
            del calls[oldest]
            self._forgotten[node] = max(self._forgotten.get(node, was_signed_at), was_signed_at)
        # What was forgotten is too old by this machine's clock, unless that was set back.
        if signature.fingerprint in calls or signed_at <= self._forgotten.get(node, _NEVER):
            raise _Refused(401, "the call was made before")
        if len(calls) >= self._limits.calls:
            raise _Refused(503, "too many calls of this device")
        calls[signature.fingerprint] = now, signed_at

    @contextmanager
    def _one_more_of(self, node: int) -> Iterator[None]:
        """Each call may hold an answer the size of an object for as long as it is not read."""
        if self._under_way[node] >= self._limits.calls_at_once:
            raise _Refused(503, "too many calls of this device at a time")
        self._under_way[node] += 1
        try:
            yield
        finally:
            self._under_way[node] -= 1
            if not self._under_way[node]:
                del self._under_way[node]

    @contextmanager
    def _held_for(self, node: int) -> Iterator[Callable[[int], None]]:
        """Count what is held of a node's bodies until the call is answered."""
        mine = 0

        def take(size: int) -> None:
            nonlocal mine
            held = self._held.get(node, 0)
            if held + size > self._limits.device_bytes:
                raise _Refused(503, "too much of this device at a time")
            if sum(self._held.values()) + size > self._limits.all_bytes:
                raise _Refused(503, "too much at a time")
            mine += size
            self._held[node] = held + size

        try:
            yield take
        finally:
            if mine:
                self._held[node] -= mine
                if not self._held[node]:
                    del self._held[node]

    async def _body(self, receive: Receive, length: int, take: Callable[[int], None]) -> bytes:
        parts, got = list[bytes](), 0
        latest = time.monotonic() + self._limits.pause_s + length / self._limits.least_bytes_per_s
        while True:
            patience = min(self._limits.pause_s, latest - time.monotonic())
            try:
                event = await asyncio.wait_for(receive(), max(patience, 0.0))
            except TimeoutError:
                raise _Refused(408, "the call did not come in time") from None
            if event["type"] != "http.request":
                raise _Refused(400, "the caller went away")
            part = event.get("body", b"")
            got += len(part)
            if got > length:
                raise _Refused(400, "the call is longer than it says")
            take(len(part))
            parts.append(part)
            if not event.get("more_body", False):
                return b"".join(parts)


def _replaying(body: bytes, receive: Receive) -> Receive:
    """What the SuperLink receives: the body at once, then each further event as it comes."""
    left = [body]

    async def once() -> Event:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return once


async def _nothing() -> Event:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _answer(send: Send, refusal: _Refused) -> None:
    content = json.dumps({"detail": str(refusal)}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        # Do not wait for what is still on its way.
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
