"""The gate's limits, with limits small enough to reach; `test_superlink` has the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from server.gate import Gate, Limits
from shared.protocol import flower_internals as flower
from shared.protocol.call_signature import KEY_HEADER, TIME_HEADER, call_headers

PUSH = "/v1/fleet/push-object"
KEYS = [ec.generate_private_key(ec.SECP384R1()) for _ in range(3)]
PEMS = [flower.public_key_to_bytes(key.public_key()) for key in KEYS]
SMALL = Limits(
    object_bytes=1000, device_bytes=1500, all_bytes=2500, pause_s=0.2, calls=5, tree_bytes=1000
)


def scope(device: int, body: bytes, length: int | None = None, path: str = PUSH) -> dict[str, Any]:
    import base64

    now = datetime.now(UTC).isoformat()
    headers = {
        KEY_HEADER: base64.b64encode(PEMS[device]).decode(),
        TIME_HEADER: now,
        "content-length": str(len(body) if length is None else length),
        **call_headers(KEYS[device], path, now, body),
    }
    pairs = [(k.encode(), v.encode()) for k, v in headers.items()]
    return {"type": "http", "method": "POST", "path": path, "headers": pairs}


class Behind:
    """What stands behind the gate: keeps the bodies, and answers when it may."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.may_answer = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        event = await receive()
        assert not event["more_body"]
        self.bodies.append(event["body"])
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def call(gate: Gate, scope: Any, parts: Iterable[bytes], *, ends: bool = True) -> int:
    """Returns the status; a body that does not end stops after its parts."""
    events = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if ends:
        events.append({"type": "http.request", "body": b"", "more_body": False})
    told: list[int] = []

    async def receive() -> Any:
        if events:
            return events.pop(0)
        await asyncio.sleep(60)

    async def send(event: Any) -> None:
        if "status" in event:
            told.append(event["status"])

    await gate(scope, receive, send)
    return told[0]


def made() -> tuple[Gate, Behind]:
    behind = Behind()
    return Gate(behind, lambda pem: PEMS.index(pem) + 10, "secret", SMALL), behind


def test_a_body_comes_through_whole_and_once() -> None:
    async def check() -> None:
        gate, behind = made()
        behind.may_answer.set()
        body = b"ab" * 400
        assert await call(gate, scope(0, body), [body[:300], body[300:]]) == 200
        assert behind.bodies == [body]
        assert not gate._held

    asyncio.run(check())


@pytest.mark.parametrize(
    ("parts", "length", "ends", "status"),
    [
        ([b"a" * 10], 10, False, 408),  # stops
        ([b"a" * 11], 10, True, 400),  # longer than it says
        ([b"b" * 10], 10, True, 401),  # another body than was signed
        ([], 1001, True, 413),
    ],
)
def test_a_body_that_is_not_what_was_said(
    parts: list[bytes], length: int, ends: bool, status: int
) -> None:
    async def check() -> None:
        gate, behind = made()
        told = await call(gate, scope(0, b"a" * 10, length), parts, ends=ends)
        assert told == status and not behind.bodies and not gate._held

    asyncio.run(check())


def test_one_device_and_all_together_hold_only_so_much_at_a_time() -> None:
    async def check() -> None:
        gate, behind = made()
        body = b"a" * 1000
        first = asyncio.create_task(call(gate, scope(0, body), [body]))
        while not behind.bodies:
            await asyncio.sleep(0)
        assert await call(gate, scope(0, body), [body]) == 503
        second = asyncio.create_task(call(gate, scope(1, body), [body]))
        while len(behind.bodies) < 2:
            await asyncio.sleep(0)
        assert await call(gate, scope(2, body), [body]) == 503
        behind.may_answer.set()
        assert await first == await second == 200
        assert await call(gate, scope(2, body), [body]) == 200
        assert not gate._held

    asyncio.run(check())


def test_calls_of_one_device_are_counted() -> None:
    async def check() -> None:
        gate, behind = made()
        behind.may_answer.set()
        told = [await call(gate, scope(0, b"%d" % n), [b"%d" % n]) for n in range(7)]
        assert told == [200] * 5 + [503] * 2
        assert await call(gate, scope(1, b"x"), [b"x"]) == 200

    asyncio.run(check())


def test_of_two_headers_neither_counts() -> None:
    """Flower reads the first one of a name; whoever reads the last one has checked another key."""

    async def check() -> None:
        gate, behind = made()
        behind.may_answer.set()
        for name in (KEY_HEADER, TIME_HEADER, "content-length", "calyx-body"):
            twice = scope(0, b"x")
            value = dict(scope(1, b"x")["headers"])[name.encode()]
            twice["headers"].insert(0, (name.encode(), value))
            assert await call(gate, twice, [b"x"]) == 400
        assert not behind.bodies

    asyncio.run(check())


def test_gate_without_a_secret_is_not_built_and_websockets_are_closed() -> None:
    with pytest.raises(ValueError, match="empty secret"):
        Gate(Behind(), lambda pem: None, "")

    async def check() -> None:
        sent: list[Any] = []

        async def send(event: Any) -> None:
            sent.append(event)

        await made()[0]({"type": "websocket", "path": "/"}, None, send)  # type: ignore[arg-type]
        assert sent == [{"type": "websocket.close", "code": 1008}]

    asyncio.run(check())
