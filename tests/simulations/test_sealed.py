"""Whole sealed runs: the sums are right, no one sees an update, and faults stay where they are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tenseal as ts
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from safetensors.numpy import load_file

from calyx.client.app import app as real_client
from calyx.client.ledger.ledger import Ledger
from calyx.server.federation import Federation
from calyx.server.run_settings import RunSettings
from calyx.shared.config import Config
from calyx.shared.config.load import to_run_config
from calyx.shared.errors import PolicyViolation, RoundError
from calyx.shared.protocol.refusals import error_reply
from calyx.simulations import run
from calyx.simulations.authority import simulated_authority
from calyx.simulations.engines.grid import InProcessExecutor, LocalGrid, client_contexts
from calyx.simulations.engines.pool import encode
from calyx.simulations.presets import resolve
from calyx.simulations.run import partition_of
from calyx.simulations.run_folder import RunFolder

SMALL = (
    "training.rounds=2",
    "federation.clients=4",
    "data.max_records=400",
    "privacy.epsilon=8",
    "secure_aggregation.scheme=none",
)
SEALED = (
    *SMALL,
    "secure_aggregation.scheme=bfv",
    "secure_aggregation.min_contributors=3",
    "privacy.noise=distributed",
    "privacy.sampling=full",
)
Answer = Callable[[Message, Message], Message]


def federate(
    config: Config, folder: Path, answers: dict[int, Answer] | None = None
) -> tuple[list[dict[str, Any]], list[bytes], list[bytes]]:
    """Run with some clients' answers changed; return rounds, bytes sent to, bytes got by server."""
    run_folder = RunFolder(folder)
    run_folder.prepare(config, partition_of(config))
    sent: list[bytes] = []
    got: list[bytes] = []
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        sent.append(encode(message))
        reply = real_client(message, context)
        change = (answers or {}).get(int(context.node_config["partition-id"]))
        if change and message.metadata.message_type == "train":
            reply = change(message, reply)
        got.append(encode(reply))
        return reply

    app.query()(answer)
    app.query("sealing")(answer)
    app.query("proposal")(answer)
    app.train()(answer)
    with simulated_authority(config) as trusted:
        nodes: dict[int, dict[str, Any]] = {
            2 + i: {
                "partition-id": i,
                "partition-file": str(run_folder.partition_path),
                "simulation-seed": config.seed,
                "ledger": str(run_folder.ledger_path(i)),
                **trusted.settings_of(i),
            }
            for i in range(config.federation.clients)
        }
        contexts = client_contexts(nodes, to_run_config(config))
        grid = LocalGrid(InProcessExecutor(app, contexts), nodes)
        settings = RunSettings("test", folder, "local", 1, config.seed)
        Federation(grid, config, settings, trusted.authority).run()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [e for e in map(json.loads, lines) if e["event"] == "round"], sent, got


def refuse(message: Message, honest: Message) -> Message:
    return error_reply(PolicyViolation("no"), message)


def with_record(change: Callable[[ConfigRecord], None]) -> Answer:
    def answer(message: Message, honest: Message) -> Message:
        record = ConfigRecord(dict(honest.content["sealed"]))  # type: ignore[arg-type]
        change(record)
        return Message(RecordDict({"sealed": record}), reply_to=message)

    return answer


@pytest.fixture(scope="module")
def sealed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sealed") / "run"
    run(settings=SEALED, out=folder, workers=1)
    return folder


def test_workers_do_not_change_a_sealed_run(sealed_run: Path, tmp_path: Path) -> None:
    run(settings=SEALED, out=tmp_path / "two", workers=2)
    models = [(d / "model.safetensors").read_bytes() for d in (sealed_run, tmp_path / "two")]
    assert models[0] == models[1]


def test_budget_is_kept_by_the_skellam_accounting(sealed_run: Path) -> None:
    with Ledger.read_only(sealed_run / "ledgers" / "client-0000.sqlite") as ledger:
        events = [entry.event for entry in ledger.entries()]
        spent = ledger.spent(1e-4, "record")
    assert [e.mechanism for e in events] == ["skellam", "skellam"]
    assert spent.pld == float("inf") and 0.99 * 8 < spent.rdp <= 8


def test_run_folder_holds_no_secret(sealed_run: Path) -> None:
    names = {path.name for path in sealed_run.rglob("*")}
    assert not any(name.endswith(".key") or "authority" in name for name in names)


def test_sealed_average_is_the_plain_average_to_quantisation(tmp_path: Path) -> None:
    config = resolve("digits-cnn", [*SMALL, "privacy.noise=none", "training.rounds=1"])
    run(settings=[*SMALL, "privacy.noise=none", "training.rounds=1"], out=tmp_path / "plain")
    bfv = [
        "secure_aggregation.scheme=bfv",
        "secure_aggregation.bits=20",
        "secure_aggregation.min_contributors=3",
    ]
    run(
        settings=[*SMALL, "privacy.noise=none", "training.rounds=1", *bfv],
        out=tmp_path / "sealed",
        workers=1,
    )
    plain, sealed = (load_file(tmp_path / n / "model.safetensors") for n in ("plain", "sealed"))
    assert config.federation.clients == 4
    difference = max(float(np.abs(plain[k] - sealed[k]).max()) for k in plain)
    assert difference < 1e-4


def test_server_gets_ciphertexts_and_nothing_else(tmp_path: Path) -> None:
    """Capture everything that reaches the server and look for any update in it."""
    _, _, got = federate(resolve("digits-cnn", SEALED), tmp_path / "run")
    from calyx.simulations.engines.pool import decode

    replies = [decode(data) for data in got]
    trained = [r for r in replies if r.metadata.message_type == "train"]
    assert len(trained) == 8
    for reply in trained:
        assert list(reply.content) == ["sealed"]
        record = reply.content["sealed"]
        assert set(record) == {"chunks", "parameters", "context", "receipt"}
        receipt = json.loads(str(record["receipt"]))
        assert set(receipt) == {
            "run", "round", "contributor", "parameters_digest", "upload_hash", "nonce", "signature",
        }  # fmt: skip
    # Ciphertexts of one and the same plaintext would differ; of two clients all the more.
    chunks = [bytes(c) for r in trained for c in r.content["sealed"]["chunks"]]  # type: ignore[union-attr]
    assert len(set(chunks)) == len(chunks)
    # Encrypted bytes look random: their entropy is close to eight bits a byte once decompressed,
    # so no run of a float update's bytes can stand among them.
    histogram = np.bincount(np.frombuffer(b"".join(chunks), np.uint8), minlength=256)
    share = histogram / histogram.sum()
    assert -(share * np.log2(share + 1e-12)).sum() > 7.0


def test_no_message_holds_a_secret_key(tmp_path: Path) -> None:
    _, sent, got = federate(resolve("digits-cnn", SEALED), tmp_path / "run")
    from calyx.simulations.engines.pool import decode

    contexts = 0
    for data in [*sent, *got]:
        message = decode(data)
        if not message.has_content():
            continue
        for record in message.content.config_records.values():
            for value in record.values():
                if isinstance(value, bytes):
                    contexts += 1
                    assert not ts.context_from(value).is_private()
    assert contexts == 4  # the context is sent once to each client, by its hash afterwards


def test_those_who_arrived_are_released_if_they_are_enough(tmp_path: Path) -> None:
    rounds, _, _ = federate(resolve("digits-cnn", SEALED), tmp_path / "run", {1: refuse})
    assert [(r["ok"], r["skipped"]) for r in rounds] == [(3, False), (3, False)]


def test_too_few_release_nothing_and_are_not_asked_again(tmp_path: Path) -> None:
    config = resolve("digits-cnn", SEALED)
    with pytest.raises(RoundError, match="only 2 of the 3 clients that a round needs are left"):
        federate(config, tmp_path / "run", {1: refuse, 2: refuse})
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    (only,) = [e for e in map(json.loads, lines) if e["event"] == "round"]
    assert (
        only["skipped"]
        and "only 2 clients sealed an update; a sum needs at least 3" in only["reason"]
    )
    # What was spent before the fault showed stays spent; a hopeless second round costs nothing.
    with Ledger.read_only(tmp_path / "run" / "ledgers" / "client-0000.sqlite") as ledger:
        assert len(ledger.entries()) == 1


BAD_CHUNKS: dict[str, Callable[[ConfigRecord], None]] = {
    "garbage": lambda r: r.__setitem__("chunks", [b"\x00" * 1000] * len(r["chunks"])),  # type: ignore[arg-type]
    "a chunk too few": lambda r: r.__setitem__("chunks", r["chunks"][1:]),  # type: ignore[index]
    "oversized": lambda r: r.__setitem__("chunks", [b"\x00" * 10**6, *r["chunks"][1:]]),  # type: ignore[index]
    "foreign context": lambda r: r.__setitem__("context", "0" * 64),
    "foreign parameters": lambda r: r.__setitem__("parameters", "0" * 64),
    "no receipt": lambda r: r.__setitem__("receipt", "{}"),
    "receipt with a forged signature": lambda r: r.__setitem__(
        "receipt", json.dumps(json.loads(str(r["receipt"])) | {"signature": "00" * 64})
    ),
    "receipt of another round": lambda r: r.__setitem__(
        "receipt", str(r["receipt"]).replace('"round":1', '"round":2')
    ),
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_bad_ciphertexts_are_rejected_and_the_others_are_released(
    name: str, tmp_path: Path
) -> None:
    config = resolve("digits-cnn", [*SEALED, "training.rounds=1"])
    (only,), _, _ = federate(config, tmp_path / "run", {2: with_record(BAD_CHUNKS[name])})
    assert [note["client"] for note in only["rejected"]] == ["2"]
    assert only["ok"] == 3 and not only["skipped"]


def test_another_clients_ciphertext_is_no_contribution(tmp_path: Path) -> None:
    """A replay under a new name is refused."""
    seen: list[Message] = []

    def remember(message: Message, honest: Message) -> Message:
        seen.append(honest)
        return honest

    def replay(message: Message, honest: Message) -> Message:
        return Message(seen[0].content, reply_to=message)

    config = resolve("digits-cnn", [*SEALED, "training.rounds=1"])
    (only,), _, _ = federate(config, tmp_path / "run", {0: remember, 2: replay})
    assert [note["client"] for note in only["rejected"]] == ["2"]


@pytest.mark.parametrize(
    "settings",
    [
        ("privacy.unit=client", "training.learning_rate=0.1"),
        ("privacy.sampling=poisson",),
        ("privacy.noise=local",),
        ("privacy.noise=none", "secure_aggregation.scheme=ckks"),
        ("secure_aggregation.scheme=ckks",),
        ("federation.strategy=fedadam", "privacy.unit=client"),
    ],
)
def test_every_valid_combination_runs(settings: tuple[str, ...], tmp_path: Path) -> None:
    result = run(settings=[*SEALED, *settings], out=tmp_path / "run", workers=1)
    assert result.rounds == 2 and np.isfinite(result.loss) and result.rejected == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert all(not e["skipped"] for e in map(json.loads, lines) if e["event"] == "round")


def test_central_noise_is_there_and_is_accounted(tmp_path: Path) -> None:
    # No update is so short, but a server that is to add noise must not look at its length.
    no_norm = "federation.max_update_norm=1e-9"
    settings = [*SMALL, "privacy.unit=client", "privacy.noise=central", no_norm]
    result = run(settings=settings, out=tmp_path / "a", workers=1)
    assert result.rejected == 0
    assert result.epsilon_max is not None and 0.97 * 8 < result.epsilon_max <= 8
    again = run(settings=settings, out=tmp_path / "b", workers=2)
    assert again.loss == result.loss
    bare = run(settings=[*settings, "privacy.epsilon=10000"], out=tmp_path / "c", workers=1)
    assert bare.loss != result.loss


def test_killed_sealed_run_resumes_to_the_same_model(sealed_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    script = f"from calyx import run\nrun(settings={SEALED!r}, out={str(folder)!r}, workers=1)"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not list((folder / "checkpoints").glob("*1.safetensors")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run("digits-cnn", settings=SEALED, out=folder, workers=1, resume=True)
    models = [(d / "model.safetensors").read_bytes() for d in (sealed_run, folder)]
    assert models[0] == models[1]
    with Ledger.read_only(folder / "ledgers" / "client-0000.sqlite") as ledger:
        assert [entry.round for entry in ledger.entries()] == [1, 2]


def test_more_clients_than_two_fields_a_slot_have_room_for_train_too(tmp_path):
    many = resolve("digits-cnn", [*SEALED, "federation.clients=66", "training.rounds=1"])
    rounds, _, _ = federate(many, tmp_path / "run")
    assert rounds[0]["ok"] == 66 and not rounds[0]["skipped"]
