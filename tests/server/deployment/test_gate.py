"""The gate's limits, with limits small enough to reach; `test_superlink` has the real ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from calyx.server.deployment.superlink.gate import Gate, Limits
from calyx.shared.protocol.flower import internals as flower
from calyx.shared.protocol.signatures.call import KEY_HEADER, TIME_HEADER, call_headers

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
    """The application behind the gate: keeps the bodies, and answers when it may."""

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


def test_calls_of_one_device_at_a_time_are_counted() -> None:
    """Each may hold an answer the size of an object that no one reads."""

    async def check() -> None:
        gate, behind = made()
        gate._limits = replace(SMALL, calls_at_once=2)
        first = [asyncio.create_task(call(gate, scope(0, b), [b])) for b in (b"1", b"2")]
        while len(behind.bodies) < 2:
            await asyncio.sleep(0)
        assert await call(gate, scope(0, b"3"), [b"3"]) == 503
        other = asyncio.create_task(call(gate, scope(1, b"3"), [b"3"]))
        while len(behind.bodies) < 3:
            await asyncio.sleep(0)
        behind.may_answer.set()
        assert [await task for task in (*first, other)] == [200] * 3
        assert await call(gate, scope(0, b"4"), [b"4"]) == 200
        assert not gate._under_way

    asyncio.run(check())


@pytest.mark.parametrize("reads", [0, 2, 9])
def test_answer_that_is_not_read_is_given_up(reads: int) -> None:
    """In parts, so that a slow reader is not taken for one that has stopped."""
    content = bytes(range(256)) * 2

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": content})

    async def check() -> None:
        limits = replace(SMALL, answer_part_bytes=64)
        gate = Gate(app, lambda pem: PEMS.index(pem) + 10, "secret", limits)
        got: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"x", "more_body": False}

        async def send(event: Any) -> None:
            if len(got) == reads:
                await asyncio.sleep(60)
            got.append(event)

        await asyncio.wait_for(gate(scope(0, b"x"), receive, send), 10)
        bodies = [event["body"] for event in got[1:]]
        assert all(len(body) == 64 for body in bodies)
        assert b"".join(bodies) == content[: 64 * max(reads - 1, 0)]
        assert all(event["more_body"] for event in got[1:-1])
        assert not gate._under_way

    asyncio.run(check())


def test_call_is_not_taken_again_when_the_clock_was_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def check() -> None:
        gate, behind = made()
        gate._began -= 3600
        behind.may_answer.set()
        old = scope(0, b"x")
        assert await call(gate, old, [b"x"]) == 200
        now = time.monotonic()
        monkeypatch.setattr(
            "calyx.server.deployment.superlink.gate.time.monotonic", lambda: now + 400
        )
        # By the wall clock no time has passed.
        assert await call(gate, old, [b"x"]) == 401
        assert await call(gate, scope(0, b"y"), [b"y"]) == 200

    asyncio.run(check())


def test_nothing_is_taken_in_of_a_stranger_who_asks_to_be_let_in() -> None:
    async def check() -> None:
        behind = Behind()
        gate = Gate(behind, lambda pem: None, "secret", SMALL)
        path = "/v1/fleet/activate-node"
        # It would wait for a body that never ends.
        assert await call(gate, scope(0, b"x", path=path), [], ends=False) == 403
        assert not behind.bodies

    asyncio.run(check())


@pytest.mark.parametrize("host", ["a?", "a/b", "a#", "u@a", "a b", ""])
def test_a_host_that_is_more_than_a_host_is_refused(host: str) -> None:
    """`https://a?/v1/fleet/...` has another path than the one that is carried out."""

    async def check() -> None:
        gate, behind = made()
        behind.may_answer.set()
        for name, status in ((host, 400), ("a.example:9091", 200), ("[::1]:9091", 200)):
            made_up = scope(0, name.encode())
            made_up["headers"].append((b"host", name.encode()))
            assert await call(gate, made_up, [name.encode()]) == status

    asyncio.run(check())


def test_of_two_headers_neither_counts() -> None:
    """Flower reads the first header of a name; a gate that reads the last checks another key."""

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
