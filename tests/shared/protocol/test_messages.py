"""Messages survive the trip, and whatever is not what it must be is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from calyx.shared.config.load import build, from_settings
from calyx.shared.errors import (
    BudgetExceeded,
    CalyxError,
    ConfigError,
    DataError,
    EncryptionError,
    LedgerError,
    ModelError,
    PolicyViolation,
    PrivacyError,
    ProtocolError,
    RunError,
)
from calyx.shared.privacy.plan import make_plan
from calyx.shared.protocol.arrays import (
    LARGEST_WEIGHT,
    digest,
    load_weights,
    read_record,
    to_record,
    weights_of,
)
from calyx.shared.protocol.identity import code_hash
from calyx.shared.protocol.messages import Introduction, TrainInstruction, read_metrics
from calyx.shared.protocol.refusals import Refusal, error_reply, read_failure
from calyx.simulations.engines.grid import take_identity

CONFIG = build({})
PLAN = make_plan(build(from_settings(["privacy.noise=none"])), 100)


def instruction(**changes: object) -> TrainInstruction:
    fields = {"run": "r", "round": 1, "plan": PLAN, "proximal_mu": 0.0, **changes}
    return TrainInstruction(**fields)  # type: ignore[arg-type]


def test_introduction_survives_the_trip() -> None:
    who = Introduction("7", 144, "0.1.0", "ab" * 32)
    assert Introduction.from_content(who.to_content()) == who


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("client", ""),
        ("client", "x" * 101),
        ("client", "a\x1b[31m"),
        ("client", 7),
        ("declared-records", -1),
        ("declared-records", 10**12),
        ("declared-records", 1.5),
        ("declared-records", True),
        ("version", 3),
    ],
)
def test_impossible_introductions_are_refused(field: str, value: object) -> None:
    content = Introduction("7", 144, "0.1.0", "ab" * 32).to_content()
    content["introduction"][field] = value  # type: ignore[index,assignment]
    with pytest.raises(ProtocolError):
        Introduction.from_content(content)


def test_instruction_survives_the_trip() -> None:
    order = instruction(round=3, proximal_mu=0.5)
    content = RecordDict({"instruction": order.to_record()})
    assert TrainInstruction.from_content(content) == order


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("round", 0, ProtocolError),
        ("round", "1", ProtocolError),
        ("proximal-mu", float("nan"), ProtocolError),
        ("proximal-mu", -1.0, ProtocolError),
        ("plan", "{}", PrivacyError),
        ("plan", "[" * 100_000, PrivacyError),
        ("plan", PLAN.to_json().replace('"delta":0.0001', '"delta":7'), PrivacyError),
        ("run", 5, ProtocolError),
    ],
)
def test_impossible_instructions_are_refused(
    field: str, value: object, error: type[Exception]
) -> None:
    record = instruction().to_record()
    record[field] = value  # type: ignore[assignment]
    with pytest.raises(error):
        TrainInstruction.from_content(RecordDict({"instruction": record}))


def test_missing_instruction_is_refused() -> None:
    for content in (RecordDict(), RecordDict({"instruction": MetricRecord({"round": 1})})):
        with pytest.raises(ProtocolError, match="lacks its 'instruction' record"):
            TrainInstruction.from_content(content)


def test_instruction_digest_changes_with_everything_that_changes_the_answer() -> None:
    weights = {"w": np.zeros(3, np.float32)}
    base = instruction().digest(CONFIG, weights)
    other_plan = make_plan(build(from_settings(["privacy.noise=none"])), 101)
    others = [
        instruction(round=2).digest(CONFIG, weights),
        instruction(plan=other_plan).digest(CONFIG, weights),
        instruction(proximal_mu=0.1).digest(CONFIG, weights),
        instruction().digest(build({"training": {"learning_rate": 0.3}}), weights),
        instruction().digest(CONFIG, {"w": np.ones(3, np.float32)}),
        instruction().digest(CONFIG, {"v": np.zeros(3, np.float32)}),
        instruction().digest(CONFIG, {"w": np.zeros((3, 1), np.float32)}),
    ]
    assert len({base, *others}) == len(others) + 1
    assert instruction(run="another").digest(CONFIG, weights) == base


def test_arrays_survive_the_trip_with_0d_and_order() -> None:
    weights = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.array(2.5, np.float32),
        "t": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(3, 2)),
    }
    back = read_record(to_record(weights), like=weights)
    assert list(back) == ["b", "a", "t"]
    assert all(back[k].tobytes() == weights[k].tobytes() for k in weights)
    assert back["a"].shape == ()
    assert digest(back) == digest(weights)


def test_a_client_takes_no_weights_that_no_training_leads_to() -> None:
    weights = {"w": np.array([0.0, -LARGEST_WEIGHT], np.float32), "n": np.array(10**9)}
    assert read_record(to_record(weights), like=weights, largest=LARGEST_WEIGHT)
    larger = {**weights, "w": np.array([0.0, -1.001 * LARGEST_WEIGHT], np.float32)}
    assert read_record(to_record(larger), like=weights)
    with pytest.raises(ProtocolError, match="array w holds values beyond 1e\\+06"):
        read_record(to_record(larger), like=weights, largest=LARGEST_WEIGHT)


def test_weights_go_into_the_model_and_come_out_unchanged() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    other = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    load_weights(other, weights_of(model))
    for name, value in weights_of(other).items():
        assert value.tobytes() == weights_of(model)[name].tobytes()


def test_refusals_keep_their_kind_and_text() -> None:
    take_identity()
    ask = Message(RecordDict(), 2, "train")
    failure = read_failure(error_reply(BudgetExceeded("8.1 of 8 would be spent"), ask))
    assert failure.kind is Refusal.BUDGET and failure.kind.is_final
    assert failure.reason == "8.1 of 8 would be spent"


@pytest.mark.parametrize(
    "error",
    [
        DataError("/home/ann/scans/train.npz is truncated: fetch it again"),
        DataError("train.npz has no labels"),
        LedgerError("ledger /var/lib/calyx/ledger.sqlite is of the data 0123abcd..."),
        PolicyViolation("/etc/calyx/contributor.key can be read by others"),
        PolicyViolation("keys in C:\\Users\\ann are no keys"),
        EncryptionError("the folder device-0/admissions is open to others"),
        ProtocolError("~ann holds no such model"),
        ConfigError("the policy policy.toml is not valid"),
        RunError("scans.db is busy"),
    ],
    ids=lambda error: f"{type(error).__name__}: {str(error)[:20]}",
)
def test_no_name_of_a_file_on_the_device_leaves_it(error: CalyxError) -> None:
    take_identity()
    failure = read_failure(error_reply(error, Message(RecordDict(), 2, "train")))
    assert failure.reason.endswith("cannot be used; its own log says why") or (
        failure.reason == "this device cannot do it; its own log says why"
    )
    lasting = PolicyViolation | LedgerError | DataError | ConfigError
    assert failure.kind.is_final == isinstance(error, lasting)


@pytest.mark.parametrize(
    ("error", "is_final"),
    [
        (ModelError("layer norm (BatchNorm2d) cannot be trained privately"), True),
        (PrivacyError("Skellam noise of this variance cannot be drawn"), True),
        (ConfigError("the configuration is not valid"), True),
        (DataError("records of this shape cannot be looked at as sequences"), True),
        (EncryptionError("a vector to quantise holds NaN"), False),
        (ProtocolError("the weights hold NaN"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_fault_that_comes_again_in_every_round_is_final(
    error: CalyxError, is_final: bool
) -> None:
    take_identity()
    failure = read_failure(error_reply(error, Message(RecordDict(), 2, "train")))
    assert failure.kind.is_final == is_final


def test_text_of_unexpected_errors_does_not_leave_the_client() -> None:
    take_identity()
    ask = Message(RecordDict(), 2, "train")
    failure = read_failure(error_reply(ValueError("patient 17 has ..."), ask))
    assert failure.kind is Refusal.FAILED and not failure.kind.is_final
    assert failure.reason == "unexpected ValueError on the client"


def test_metrics_must_be_finite_numbers() -> None:
    for bad in ([1.0], float("nan"), float("inf")):
        content = RecordDict({"metrics": MetricRecord({"loss": bad})})  # type: ignore[dict-item]
        with pytest.raises(ProtocolError):
            read_metrics(content)
    with pytest.raises(ProtocolError):
        read_metrics(RecordDict({"metrics": ConfigRecord({"loss": 1.0})}))


def test_code_hash_is_over_the_source_and_imports_nothing() -> None:
    script = (
        "import sys; from calyx.shared.protocol.identity import code_hash; h = code_hash(); "
        "print(h, 'calyx.client.app' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == [code_hash(), "False"]
    assert len(code_hash()) == 64 and code_hash(("shared",)) != code_hash()
