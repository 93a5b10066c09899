"""A device's records are what their owner said: a run that means others, or brings code, ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, Message, MessageType, RecordDict

from calyx.client.agreed_task import AgreedTask
from calyx.client.app import Handler, consider_proposal, evaluate, introduce, train
from calyx.client.node import Node
from calyx.client.records import OwnRecords
from calyx.server.deployment.signing import Signer
from calyx.shared.config import Config
from calyx.shared.config.load import build, from_settings, to_run_config
from calyx.shared.errors import ConfigError, DataError, PolicyViolation
from calyx.shared.host.sequence_file import SequenceFile
from calyx.shared.models import build_model
from calyx.shared.privacy.plan import make_plan
from calyx.shared.protocol.arrays import to_record, weights_of
from calyx.shared.protocol.messages import Introduction, Proposal, TrainInstruction
from calyx.shared.protocol.refusals import Refusal
from calyx.shared.record_spec import RecordSpec
from calyx.shared.target import Classes
from calyx.simulations.engines.grid import take_identity

KEY = Ed25519PrivateKey.generate()
RECORDS = 40
POLICY = """
[privacy]
max_epsilon = 100.0
max_delta = 1e-4
unit = "any"
noise = ["local"]
[training]
tasks = [{tasks}]
[release]
record_counts = true
metrics = true
"""
READ = {
    "label": "outcome",
    "classes": "well,ill",
    "columns": "age,pulse",
    "bounds": "age=0:100,pulse=0:200",
}
RUN = (
    "data.source=table",
    "data.directory=/srv/theirs.csv",
    "data.view=sequence",
    *(f"data.{key}={value}" for key, value in READ.items()),
    "model.name=lstm",
    "model.hidden=4",
    "training.rounds=4",
    "federation.clients=3",
    "privacy.noise=local",
    "privacy.sampling=poisson",
)
Settings = dict[str, str | int | float | bool]


def table(path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = [
        f"{rng.integers(0, 100)},{rng.integers(40, 180)},{'ill' if k % 3 else 'well'},{k % 2}"
        for k in range(RECORDS)
    ]
    path.write_text("\n".join(["age,pulse,outcome,smokes", *rows]) + "\n")
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "policy.toml").write_text(POLICY.format(tasks=""))
    return {
        "client-name": "device",
        "data-source": "table",
        "data-directory": str(table(tmp_path / "own.csv")),
        "data-settings": json.dumps(READ),
        "ledger": str(tmp_path / "ledger.sqlite"),
        "policy": str(tmp_path / "policy.toml"),
        "server-key": KEY.public_key().public_bytes_raw().hex(),
        "sequence": str(tmp_path / "instructions.last"),
    }


def run(*lines: str) -> Config:
    return build(from_settings([*RUN, *lines]))


def contents(config: Config) -> dict[str, tuple[Handler, str, RecordDict]]:
    """What a server can send for a run, by the name of the handler."""
    plan = make_plan(config, RECORDS)
    spec = RecordSpec.floats((2, 1), Classes(2))
    arrays = to_record(weights_of(build_model(run().model, spec, 0)))
    order = TrainInstruction("run", 1, plan, 0.0).to_record()
    return {
        "introduction": (introduce, MessageType.QUERY, RecordDict()),
        "proposal": (consider_proposal, "query.proposal", Proposal("run", plan, 4).to_content()),
        "train": (train, "train", RecordDict({"arrays": arrays, "instruction": order})),
        "evaluate": (evaluate, "evaluate", RecordDict({"arrays": arrays})),
    }


def answered(settings: Settings, config: Config, name: str) -> Message:
    """What the device replies to a signed message of its server."""
    handler, kind, content = contents(config)[name]
    take_identity()
    run_config = to_run_config(config)
    context = Context(
        run_id=1, node_id=2, node_config=settings, state=RecordDict(), run_config=run_config
    )
    message = Message(content, 2, kind)
    sent = SequenceFile(Path(str(settings["sequence"])).with_name("server.last"))
    Signer(KEY, sent, lambda: {2: "device"}, run_config).sign([message])
    return handler(message, context)


HANDLERS = ("introduction", "proposal", "train", "evaluate")
OPEN = ("privacy.release_metrics=true", "federation.client_evaluation=true")


@pytest.mark.parametrize("name", HANDLERS)
def test_a_run_that_means_the_same_records_is_answered(settings: Settings, name: str) -> None:
    reply = answered(settings, run(*OPEN), name)
    assert not reply.has_error(), reply.error
    if name == "introduction":
        assert Introduction.from_content(reply.content).declared_records == RECORDS


@pytest.mark.parametrize("name", HANDLERS)
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("data.label=smokes", "data.label = smokes was requested, this device has outcome"),
        ("data.classes=ill,well", "data.classes = ill,well was requested, this device has well,"),
        ("data.columns=age,smokes", "data.columns = age,smokes was requested"),
        ("data.bounds=age=0:50", "data.bounds = age=0:50 was requested, this device has age=0:100"),
    ],
)
def test_another_reading_is_refused_and_the_file_is_not_even_opened(
    settings: Settings, name: str, line: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "own.csv").unlink()
    reply = answered(settings, run(*OPEN, line), name)
    assert reply.has_error() and reply.error.code == Refusal.POLICY
    assert reason in str(reply.error.reason)
    assert not (tmp_path / "ledger.sqlite").exists()


def test_a_refusal_names_every_key_and_quotes_no_record(settings: Settings) -> None:
    config = run("data.label=smokes", "data.columns=age")
    with pytest.raises(PolicyViolation) as refused:
        Node.from_settings(settings).records(config)
    assert "data.label" in str(refused.value) and "data.columns" in str(refused.value)


def test_a_task_that_the_owner_did_not_agree_to_learns_nothing(settings: Settings) -> None:
    config = run("task.kind=regression", "data.bounds=outcome=0:1")
    with pytest.raises(PolicyViolation, match=r"task\.kind = regression was requested"):
        Node.from_settings(settings).records(config)


def test_what_the_server_says_of_its_own_files_does_not_matter(settings: Settings) -> None:
    config = run("data.encoding=utf-16", "data.record_id=age", "data.max_records=5")
    assert len(Node.from_settings(settings).records(config)) == RECORDS


def test_a_device_from_before_there_were_settings_reads_as_it_did(tmp_path: Path) -> None:
    values = np.arange(2 * 8 * 8).reshape(2, 8, 8).astype(np.uint8)
    np.savez(tmp_path / "own.npz", x=values, y=[0, 1], classes=np.int64(10))
    own = OwnRecords("npz", str(tmp_path / "own.npz"))
    config = build(from_settings([]))
    own.check(config)
    assert own.viewed("image").input_shape == (1, 8, 8)
    assert own.charged().input_shape == (8, 8)
    for line in ("data.value_range=0,4095", "data.classes=3,5"):
        with pytest.raises(PolicyViolation, match=line.partition("=")[0]):
            own.check(build(from_settings([line])))


def test_the_ledger_knows_records_by_the_owners_reading(settings: Settings) -> None:
    node = Node.from_settings(settings)
    own = OwnRecords("table", str(settings["data-directory"]), json.dumps(READ))
    sequence, stored = node.records(run()), own.read().train
    with node.ledger(sequence) as ledger:
        assert ledger.data_fingerprint == own.charged().fingerprint
    assert stored.input_shape == (2,) and sequence.input_shape == (2, 1)


@pytest.mark.parametrize(
    ("source", "written", "error", "reason"),
    [
        ("table", {"window": 3}, ConfigError, "data.window"),
        ("npz", {"label": "age"}, ConfigError, "data.label"),
        ("table", {}, ConfigError, "data.label"),
        ("table", {"label": "a", "bounds": "x"}, ConfigError, "data.bounds"),
        ("table", {"label": "a", "directory": "/etc"}, ConfigError, "data.directory"),
        ("table", [1], DataError, "no table"),
    ],
)
def test_settings_that_cannot_be_used_are_named(
    source: str, written: Any, error: type[Exception], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=reason):
        _ = OwnRecords(source, str(tmp_path), json.dumps(written)).config


class TestOwnTask:
    """The server names code; the device must not run it before its owner's word."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.syspath_prepend(str(tmp_path))
        before = set(sys.modules)
        yield
        for name in set(sys.modules) - before:
            if name.startswith("study_"):
                del sys.modules[name]

    def module(self, tmp_path: Path, *, package: bool = False) -> tuple[str, Path]:
        """A task whose import, or that of its package, leaves a file behind."""
        name, sprung = f"study_{uuid4().hex}", tmp_path / "sprung"
        trap = f"open({str(sprung)!r}, 'w').close()\n"
        text = (
            "from calyx import Task\n"
            "def losses(outputs, labels):\n    return (outputs[:, 0] - labels) ** 2\n"
            "task = Task(losses, {'mae': lambda p, y: 0.0})\n"
        )
        if package:
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text(trap)
            (tmp_path / name / "inner.py").write_text(text)
            return f"{name}.inner:task", sprung
        (tmp_path / f"{name}.py").write_text(trap + text)
        return f"{name}:task", sprung

    @pytest.mark.parametrize("name", HANDLERS)
    @pytest.mark.parametrize("package", [False, True])
    @pytest.mark.parametrize("agreed", ["nothing", "another", "before it changed"])
    def test_code_that_a_server_names_is_not_run(
        self, settings: Settings, tmp_path: Path, name: str, *, package: bool, agreed: str
    ) -> None:
        kind, sprung = self.module(tmp_path, package=package)
        settings["data-task"] = kind
        line = f'"{AgreedTask(kind, "0" * 64)}"' if agreed == "before it changed" else ""
        if agreed == "another":
            line = f'"{AgreedTask("other:task", AgreedTask.present(kind).sha256)}"'
        (tmp_path / "policy.toml").write_text(POLICY.format(tasks=line))
        reply = answered(settings, run(*OPEN, f"task.kind={kind}"), name)
        assert reply.has_error() and reply.error.code == Refusal.POLICY
        assert f"task.kind = {kind}" in str(reply.error.reason)
        assert not sprung.exists() and not (tmp_path / "ledger.sqlite").exists()

    @pytest.mark.parametrize("name", HANDLERS)
    def test_a_task_of_the_policy_that_is_not_of_these_records_is_not_run(
        self, settings: Settings, tmp_path: Path, name: str
    ) -> None:
        kind, sprung = self.module(tmp_path)
        line = f'"{AgreedTask.present(kind)}"'
        (tmp_path / "policy.toml").write_text(POLICY.format(tasks=line))
        reply = answered(settings, run(*OPEN, f"task.kind={kind}"), name)
        assert reply.has_error() and "this device has classification" in str(reply.error.reason)
        assert not sprung.exists()

    def test_an_offer_to_seal_is_refused_before_it_is_looked_at(
        self, settings: Settings, tmp_path: Path
    ) -> None:
        kind, sprung = self.module(tmp_path)
        sealed = ("secure_aggregation.scheme=bfv", "secure_aggregation.min_contributors=3")
        config = run(f"task.kind={kind}", *sealed)
        with pytest.raises(PolicyViolation, match="the policy allows those built in"):
            Node.from_settings(settings).accept_offer(cast(Any, None), config)
        assert not sprung.exists()

    @pytest.mark.parametrize("name", ["proposal", "train"])
    def test_what_the_owner_agreed_to_is_run(
        self, settings: Settings, tmp_path: Path, name: str
    ) -> None:
        kind, sprung = self.module(tmp_path)
        settings["data-task"] = kind
        line = f'"{AgreedTask.present(kind)}"'
        (tmp_path / "policy.toml").write_text(POLICY.format(tasks=line))
        reply = answered(settings, run(f"task.kind={kind}"), name)
        assert not reply.has_error(), reply.error
        assert sprung.exists()
