"""The local engine's Grid, in this process and with worker processes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from calyx.server.exchange import exchange
from calyx.shared.errors import RunError
from calyx.shared.protocol.arrays import to_record
from calyx.simulations.engines.grid import (
    ClientExecutor,
    InProcessExecutor,
    LocalGrid,
    Settings,
    client_contexts,
)
from calyx.simulations.engines.pool import WorkerPool, decode, encode

NODES: dict[int, Settings] = {2 + i: {"partition-id": i} for i in range(4)}

APP = """
import os, time
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(message, context):
    number = context.node_config["partition-id"]
    order = message.content.config_records.get("do", {})
    if order.get("who") == number:
        if order["what"] == "raise":
            raise ValueError("secret record 42")
        if order["what"] == "die":
            os._exit(9)
        if order["what"] == "hang":
            time.sleep(3600)
        if order["what"] == "mutate":
            message.content["arrays"].clear()
    count = len(message.content.array_records.get("arrays", {}))
    reply = {"number": number, "pid": os.getpid(), "arrays": count}
    return Message(RecordDict({"metrics": MetricRecord(reply)}), reply_to=message)
"""


@pytest.fixture(params=["in_process", "workers"])
def executor(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ClientExecutor]:
    (tmp_path / "answering_app.py").write_text(APP)
    monkeypatch.syspath_prepend(str(tmp_path))
    if request.param == "in_process":
        scope: dict[str, ClientApp] = {}
        exec(compile(APP, "answering_app", "exec"), scope)
        yield InProcessExecutor(scope["app"], client_contexts(NODES, {}))
        return
    pool = WorkerPool(2, "answering_app:app", NODES, {})
    try:
        pool.wait_until_ready()
        yield pool
    finally:
        pool.close()


@pytest.fixture
def send(executor: ClientExecutor) -> Callable[..., list[Message]]:
    grid = LocalGrid(executor, NODES)

    def round_trip(timeout_s: float = 60.0, **order: object) -> list[Message]:
        from flwr.app import ConfigRecord

        content = RecordDict({"arrays": to_record({"w": np.ones(3, np.float32)})})
        if order:
            content["do"] = ConfigRecord(order)  # type: ignore[arg-type]
        messages = [Message(content, node, "train") for node in grid.get_node_ids()]
        return list(exchange(grid, messages, timeout_s))

    return round_trip


def numbers(replies: list[Message]) -> set[object]:
    return {r.content["metrics"]["number"] for r in replies if r.has_content()}


def test_every_client_answers_as_itself(send: Callable[..., list[Message]]) -> None:
    replies = send()
    assert numbers(replies) == {0, 1, 2, 3}
    assert {r.metadata.src_node_id for r in replies} == set(NODES)


def test_a_raising_client_fails_alone_and_its_text_stays_with_it(
    send: Callable[..., list[Message]],
) -> None:
    replies = send(who=1, what="raise")
    assert numbers(replies) == {0, 2, 3}
    (failed,) = [r for r in replies if r.has_error()]
    assert "ValueError" in str(failed.error.reason)
    assert "secret" not in str(failed.error.reason)


def test_a_client_cannot_change_what_others_receive(send: Callable[..., list[Message]]) -> None:
    replies = send(who=0, what="mutate")
    counts = {r.content["metrics"]["number"]: r.content["metrics"]["arrays"] for r in replies}
    assert counts == {0: 0, 1: 1, 2: 1, 3: 1}


@pytest.mark.parametrize("executor", ["workers"], indirect=True)
def test_a_dying_client_process_is_reported_and_replaced(
    send: Callable[..., list[Message]],
) -> None:
    replies = send(who=2, what="die")
    assert numbers(replies) == {0, 1, 3}
    assert sum(r.has_error() for r in replies) == 1
    assert numbers(send()) == {0, 1, 2, 3}


@pytest.mark.parametrize("executor", ["workers"], indirect=True)
def test_a_hung_client_does_not_outlive_its_deadline(send: Callable[..., list[Message]]) -> None:
    started = time.monotonic()
    replies = send(timeout_s=3.0, who=1, what="hang")
    assert numbers(replies) == {0, 2, 3}
    assert time.monotonic() - started < 30
    assert numbers(send()) == {0, 1, 2, 3}


@pytest.mark.parametrize("executor", ["workers"], indirect=True)
def test_work_is_spread_over_processes_that_end_with_the_pool(
    send: Callable[..., list[Message]], executor: ClientExecutor
) -> None:
    pids = {int(r.content["metrics"]["pid"]) for _ in range(3) for r in send()}
    assert len(pids) == 2 and os.getpid() not in pids
    executor.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_messages_cross_process_borders_unchanged(send: Callable[..., list[Message]]) -> None:
    content = RecordDict(
        {
            "arrays": to_record({"w": np.arange(6, dtype=np.float32), "s": np.array(2.5)}),
            "metrics": MetricRecord({"a": 1, "b": [0.1, 0.2]}),
        }
    )
    message = Message(content, 2, "train", group_id="7")
    copy = decode(encode(message))
    assert copy.content == content
    assert copy.metadata.dst_node_id == 2 and copy.metadata.group_id == "7"


def test_unknown_app_is_one_clear_error() -> None:
    pool = WorkerPool(1, "no_such_module:app", NODES, {})
    try:
        with pytest.raises(RunError, match="ModuleNotFoundError.*no_such_module"):
            pool.wait_until_ready()
    finally:
        pool.close()


def test_workers_do_not_import_from_the_folder_the_user_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder named `client` where the user happens to be must not shadow ours."""
    trap = tmp_path / "client"
    trap.mkdir()
    (trap / "__init__.py").write_text("raise RuntimeError('the wrong client was imported')")
    (trap / "app.py").write_text("raise RuntimeError('the wrong client was imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    pool = WorkerPool(1, "calyx.client.app:app", NODES, {})
    try:
        pool.wait_until_ready()
    finally:
        pool.close()
