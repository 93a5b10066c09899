"""How many records a device holds leaves it only where its owner lets it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, Message, MessageType, RecordDict

from calyx.client.app import evaluate, introduce, train
from calyx.server.deployment.signing import Signer
from calyx.shared.config import Config
from calyx.shared.config.load import build, from_settings, to_run_config
from calyx.shared.host.sequence_file import SequenceFile
from calyx.shared.models import build_model
from calyx.shared.privacy.plan import SumShape, make_plan
from calyx.shared.protocol.arrays import to_record, weights_of
from calyx.shared.protocol.messages import Introduction, TrainInstruction
from calyx.shared.protocol.refusals import Refusal
from calyx.shared.record_spec import RecordSpec
from calyx.simulations.engines.grid import take_identity

KEY = Ed25519PrivateKey.generate()
RECORDS = 37
CLOSED = """
[privacy]
max_epsilon = inf
max_delta = 1e-4
unit = "any"
allow_unprotected = true
"""
NOMINAL = ("privacy.record_counts=nominal", "privacy.nominal_records=100")
UNPROTECTED = ("privacy.noise=none",)


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str | int | float | bool]:
    """Of a real device whose policy says nothing about counts."""
    take_identity()
    (tmp_path / "policy.toml").write_text(CLOSED)
    rng = np.random.default_rng(5)
    np.savez(
        tmp_path / "own.npz",
        x=rng.random((RECORDS, 8, 8), dtype=np.float32),
        y=rng.integers(0, 10, RECORDS),
        classes=10,
    )
    return {
        "client-name": "device",
        "data-source": "npz",
        "data-directory": str(tmp_path / "own.npz"),
        "ledger": str(tmp_path / "ledger.sqlite"),
        "policy": str(tmp_path / "policy.toml"),
        "server-key": KEY.public_key().public_bytes_raw().hex(),
        "sequence": str(tmp_path / "instructions.last"),
    }


Settings = dict[str, str | int | float | bool]


def open_policy(settings: Settings, *lines: str) -> None:
    Path(str(settings["policy"])).write_text(CLOSED + "\n".join(["[release]", *lines]) + "\n")


def run(*lines: str) -> Config:
    return build(from_settings(["training.rounds=4", *lines]))


def asked(
    handler: object, settings: Settings, config: Config, kind: str, content: RecordDict
) -> Message:
    run_config = to_run_config(config)
    context = Context(
        run_id=1,
        node_id=2,
        node_config=settings,
        state=RecordDict(),
        run_config=run_config,
    )
    message = Message(content, 2, kind)
    sent = SequenceFile(Path(str(settings["sequence"])).with_name("server.last"))
    Signer(KEY, sent, lambda: {2: "device"}, run_config).sign([message])
    return handler(message, context)  # type: ignore[operator,no-any-return]


def introduction(settings: Settings, *lines: str) -> Message:
    return asked(introduce, settings, run(*lines), MessageType.QUERY, RecordDict())


@pytest.mark.parametrize("lines", [(), UNPROTECTED, (*UNPROTECTED, *NOMINAL)])
def test_an_introduction_tells_no_count_against_the_owners_will(
    settings: Settings, lines: tuple[str, ...]
) -> None:
    reply = introduction(settings, *lines)
    assert reply.has_error() and reply.error.code == Refusal.POLICY
    assert "nominal" in str(reply.error.reason) and str(RECORDS) not in str(reply.error.reason)

    open_policy(settings, "record_counts = true")
    told = Introduction.from_content(introduction(settings, *lines).content)
    assert told.declared_records == RECORDS


def test_a_run_with_nominal_counts_is_answered_without_the_count(settings: Settings) -> None:
    reply = introduction(settings, *NOMINAL)
    assert Introduction.from_content(reply.content).declared_records == 0


@pytest.mark.parametrize("guess", [RECORDS - 1, RECORDS, RECORDS + 1])
def test_plans_that_guess_the_count_all_get_the_same_answer(
    settings: Settings, guess: int, tmp_path: Path
) -> None:
    config = run()
    model = build_model(config.model, RecordSpec.floats((1, 8, 8)), 10, config.seed)
    plan = make_plan(config, guess, SumShape(1000, 8191))
    content = RecordDict(
        {
            "arrays": to_record(weights_of(model)),
            "instruction": TrainInstruction("run", 1, plan, 0.0).to_record(),
        }
    )
    reply = asked(train, settings, config, MessageType.TRAIN, content)
    assert reply.has_error() and reply.error.code == Refusal.POLICY
    assert "privacy.record_counts" in str(reply.error.reason)
    assert "was made for" not in str(reply.error.reason)
    assert not (tmp_path / "ledger.sqlite").exists()


def test_an_evaluation_weighs_with_the_nominal_count(settings: Settings) -> None:
    open_policy(settings, "metrics = true")
    lines = ("privacy.release_metrics=true", "federation.client_evaluation=true")
    config = run(*lines, *NOMINAL)
    model = build_model(config.model, RecordSpec.floats((1, 8, 8)), 10, config.seed)
    content = RecordDict({"arrays": to_record(weights_of(model))})
    reply = asked(evaluate, settings, config, MessageType.EVALUATE, content)
    assert reply.content["metrics"]["num-examples"] == 100  # type: ignore[index,call-overload]
    refused = asked(evaluate, settings, run(*lines), MessageType.EVALUATE, content)
    assert refused.has_error() and refused.error.code == Refusal.POLICY


def test_a_simulated_client_without_a_policy_tells_its_count(settings: Settings) -> None:
    del settings["policy"]
    told = introduction({**settings, "simulation-seed": 1})
    assert Introduction.from_content(told.content).declared_records == RECORDS
