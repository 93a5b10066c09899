"""Clients that lie, break or refuse, in whole runs over the real apps.

The faulty client is the real one with its answer changed on the way out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from safetensors.numpy import load_file

from calyx.client.app import app as real_client
from calyx.server.federation import Federation
from calyx.server.run_settings import RunSettings
from calyx.shared.config import Config
from calyx.shared.config.load import to_run_config
from calyx.shared.errors import PolicyViolation, RoundError
from calyx.shared.protocol.arrays import to_record
from calyx.shared.protocol.refusals import error_reply
from calyx.simulations.engines.grid import InProcessExecutor, LocalGrid, client_contexts
from calyx.simulations.presets import resolve
from calyx.simulations.run import partition_of
from calyx.simulations.run_folder import RunFolder

Answer = Callable[[Message, Message], Message]
SETTINGS = (
    "training.rounds=2",
    "federation.clients=4",
    "data.max_records=400",
    "privacy.noise=local",
    "privacy.sampling=poisson",
    "privacy.epsilon=8",
    "secure_aggregation.scheme=none",
)


def faulty_app(liars: dict[int, Answer]) -> ClientApp:
    app = ClientApp()

    def train(message: Message, context: Context) -> Message:
        honest = real_client(message, context)
        lie = liars.get(int(context.node_config["partition-id"]))
        return lie(message, honest) if lie else honest

    app.train()(train)
    app.query()(lambda message, context: real_client(message, context))
    app.query("proposal")(lambda message, context: real_client(message, context))
    app.evaluate()(lambda message, context: real_client(message, context))
    return app


def federate(
    config: Config, folder: Path, liars: dict[int, Answer], app: ClientApp | None = None
) -> list[dict[str, Any]]:
    run_folder = RunFolder(folder)
    run_folder.prepare(config, partition_of(config))
    nodes: dict[int, dict[str, Any]] = {
        2 + i: {
            "partition-id": i,
            "partition-file": str(run_folder.partition_path),
            "simulation-seed": config.seed,
            "ledger": str(run_folder.ledger_path(i)),
        }
        for i in range(config.federation.clients)
    }
    contexts = client_contexts(nodes, to_run_config(config))
    grid = LocalGrid(InProcessExecutor(app or faulty_app(liars), contexts), nodes)
    Federation(grid, config, RunSettings("test", folder, "local", 1)).run()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [e for e in map(json.loads, lines) if e["event"] == "round"]


def with_array(name_part: str, change: Callable[[np.ndarray], np.ndarray]) -> Answer:
    def lie(message: Message, honest: Message) -> Message:
        record = honest.content["arrays"]
        weights = {name: record[name].numpy().copy() for name in record}
        name = next(n for n in weights if name_part in n)
        weights[name] = change(weights[name])
        content = RecordDict({"arrays": to_record(weights), "metrics": honest.content["metrics"]})
        return Message(content, reply_to=message)

    return lie


def with_content(content: RecordDict) -> Answer:
    return lambda message, honest: Message(content, reply_to=message)


def with_count(count: int) -> Answer:
    def lie(message: Message, honest: Message) -> Message:
        metrics = MetricRecord({"num-examples": count})
        content = RecordDict({"arrays": honest.content["arrays"], "metrics": metrics})
        return Message(content, reply_to=message)

    return lie


LIES: dict[str, tuple[Answer, str]] = {
    "NaN": (with_array("weight", lambda w: np.full_like(w, np.nan)), "NaN or infinity"),
    "one infinity": (
        with_array("bias", lambda w: np.concatenate([[np.inf], w[1:]]).astype(np.float32)),
        "NaN or infinity",
    ),
    "shape": (with_array("weight", lambda w: w[..., :1].copy()), "shape"),
    "type": (with_array("weight", lambda w: w.astype(np.float64)), "bytes|type"),
    "huge": (with_array("weight", lambda w: np.full_like(w, 1e30)), "norm"),
    "absurd count": (with_count(10**9), "records"),
    "empty": (with_content(RecordDict()), "array record"),
    "nameless arrays": (
        with_content(RecordDict({"arrays": ArrayRecord(), "metrics": MetricRecord({"n": 1})})),
        "missing",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_one_liar_is_quarantined_and_the_run_completes(name: str, tmp_path: Path) -> None:
    lie, reason = LIES[name]
    config = resolve("digits-cnn", [*SETTINGS, "privacy.noise=none"])
    first, second = federate(config, tmp_path / "run", {2: lie})
    (note,) = first["rejected"]
    assert note["client"] == "2"
    import re

    assert re.search(reason, note["reason"])
    assert (first["ok"], first["asked"], first["skipped"]) == (3, 4, False)
    assert (second["ok"], second["asked"], second["rejected"]) == (3, 3, [])
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert all(np.isfinite(w).all() for w in weights.values())


def test_the_liar_leaves_no_trace_in_the_model(tmp_path: Path) -> None:
    """The model is bit for bit the one of a run in which the client did not answer at all."""
    config = resolve("digits-cnn", [*SETTINGS, "privacy.noise=none"])
    lie, _ = LIES["huge"]
    federate(config, tmp_path / "lie", {2: lie})

    def refuse(message: Message, honest: Message) -> Message:
        return error_reply(PolicyViolation("no"), message)

    federate(config, tmp_path / "refusal", {2: refuse})
    models = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("lie", "refusal")]
    assert models[0] == models[1]


def test_refusal_is_listed_with_its_reason_and_the_client_is_not_asked_again(
    tmp_path: Path,
) -> None:
    config = resolve("digits-cnn", [*SETTINGS, "privacy.noise=none"])

    def refuse(message: Message, honest: Message) -> Message:
        return error_reply(PolicyViolation("epsilon too high"), message)

    first, second = federate(config, tmp_path / "run", {1: refuse})
    assert first["declined"] == [{"client": "1", "reason": "epsilon too high"}]
    assert second["asked"] == 3


def test_crashing_client_is_asked_again(tmp_path: Path) -> None:
    def crash(message: Message, honest: Message) -> Message:
        raise ValueError("record 17 is odd")

    config = resolve("digits-cnn", [*SETTINGS, "privacy.noise=none"])
    rounds = federate(config, tmp_path / "run", {0: crash})
    assert [r["asked"] for r in rounds] == [4, 4]
    assert all(r["failed"][0]["client"] == "0" for r in rounds)
    assert "record 17" not in json.dumps(rounds)


def test_round_with_too_few_replies_is_skipped_and_changes_nothing(tmp_path: Path) -> None:
    def crash(message: Message, honest: Message) -> Message:
        raise ValueError

    config = resolve("digits-cnn", [*SETTINGS, "privacy.noise=none", "federation.min_replies=3"])
    first, second = federate(config, tmp_path / "run", {0: crash, 1: crash})
    assert first["skipped"] and second["skipped"]
    assert first["accuracy"] == second["accuracy"]


def test_run_that_cannot_go_on_says_why(tmp_path: Path) -> None:
    config = resolve("digits-cnn", [*SETTINGS, "privacy.noise=none", "federation.min_replies=4"])
    lie, _ = LIES["NaN"]
    with pytest.raises(RoundError, match="only 3 of the 4 clients.*NaN"):
        federate(config, tmp_path / "run", {3: lie})


def test_late_replies_are_not_used(tmp_path: Path) -> None:
    import time

    def slow(message: Message, honest: Message) -> Message:
        time.sleep(2.5)
        return honest

    config = resolve(
        "digits-cnn",
        [*SETTINGS, "privacy.noise=none", "federation.round_timeout_s=2", "training.rounds=1"],
    )
    (only,) = federate(config, tmp_path / "run", {3: slow})
    assert only["ok"] == 3
    assert only["failed"] == [{"client": "3", "reason": "no answer before the deadline"}]


def test_private_run_is_as_robust(tmp_path: Path) -> None:
    lie, _ = LIES["NaN"]
    first, second = federate(resolve("digits-cnn", SETTINGS), tmp_path / "run", {2: lie})
    assert len(first["rejected"]) == 1 and second["ok"] == 3
