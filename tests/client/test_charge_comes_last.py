"""A failure that can be foreseen comes before the ledger is written, and is not retried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from calyx.authority.local import LocalAuthority
from calyx.client.node import Node
from calyx.client.round import train_round
from calyx.shared.config import Config
from calyx.shared.config.load import build, from_settings
from calyx.shared.data import load_folder
from calyx.shared.errors import CalyxError, ConfigError, ModelError, PolicyViolation
from calyx.shared.models import build_model
from calyx.shared.privacy.plan import make_plan
from calyx.shared.protocol.arrays import to_record, weights_of
from calyx.shared.protocol.messages import TrainInstruction
from calyx.shared.protocol.refusals import error_reply, read_failure
from calyx.shared.record_spec import RecordSpec
from calyx.simulations.engines.grid import take_identity
from tests.client.sealed_device import Side

POLICY = """
[privacy]
max_epsilon = inf
max_delta = 1e-4
unit = "any"
noise = ["local"]
allow_unprotected = true
[training]
models = ["*"]
[release]
record_counts = true
metrics = true
"""


@pytest.fixture
def device(tmp_path: Path) -> Node:
    """A real device whose owner allows any model."""
    (tmp_path / "policy.toml").write_text(POLICY)
    own = load_folder(build(from_settings([])).data).subset(np.arange(60))
    np.savez(tmp_path / "own.npz", x=own.features[:, 0], y=own.labels, classes=np.int64(10))
    return Node.from_settings(
        {
            "client-name": "device",
            "data-source": "npz",
            "data-directory": str(tmp_path / "own.npz"),
            "ledger": str(tmp_path / "ledger.sqlite"),
            "policy": str(tmp_path / "policy.toml"),
        }
    )


def config_of(model: str, *settings: str) -> Config:
    name = f"model.name=tests.client.odd_models:{model}"
    return build(from_settings(["training.rounds=2", "federation.clients=3", name, *settings]))


def order(config: Config) -> RecordDict:
    model = build_model(config.model, RecordSpec.floats((1, 8, 8)), 10, config.seed)
    instruction = TrainInstruction("run", 1, make_plan(config, 60), 0.0).to_record()
    return RecordDict({"arrays": to_record(weights_of(model)), "instruction": instruction})


def is_final(error: CalyxError) -> bool:
    """Whether a server that gets this stops asking the device."""
    take_identity()
    return read_failure(error_reply(error, Message(RecordDict(), 2, "train"))).kind.is_final


BY_RECORD = ("privacy.noise=local", "privacy.sampling=poisson")
BY_CLIENT = ("privacy.noise=local", "privacy.unit=client")
UNPROTECTED = ("privacy.noise=none",)
UNFIT = {
    "records cannot be told apart": ("Mixes", BY_RECORD, "mixes the records of a batch"),
    "for records, wrong shape": ("WrongShape", BY_RECORD, "shapes cannot be multiplied"),
    "for clients, wrong shape": ("WrongShape", BY_CLIENT, "shapes cannot be multiplied"),
    "for clients, no gradient": ("NoGradient", BY_CLIENT, "does not require grad"),
    "without privacy, wrong shape": ("WrongShape", UNPROTECTED, "shapes cannot be multiplied"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_model_that_cannot_be_trained_costs_nothing(name: str, device: Node) -> None:
    model, settings, reason = UNFIT[name]
    config = config_of(model, *settings)
    with pytest.raises(ModelError, match=reason) as refused:
        train_round(order(config), config, device)
    assert is_final(refused.value)
    with device.ledger(device.records(config)) as ledger:
        assert not ledger.entries()


def test_a_model_that_can_be_trained_is_charged_and_trained(device: Node) -> None:
    """Batch norm is not a fault where whole clients are protected: the tests above see a fault."""
    config = config_of("Mixes", *BY_CLIENT)
    assert train_round(order(config), config, device)["arrays"]
    with device.ledger(device.records(config)) as ledger:
        assert len(ledger.entries()) == 1


@pytest.fixture
def side(tmp_path: Path) -> Iterator[Side]:
    with LocalAuthority(tmp_path / "authority", min_contributors=2) as authority:
        yield Side(tmp_path, authority)


def _no_keys(side: Side) -> None:
    (side.folder / "device.key").unlink()


def _open_keys(side: Side) -> None:
    (side.folder / "device.key").chmod(0o644)


def _damaged_keys(side: Side) -> None:
    (side.folder / "device.key").write_bytes(b"short")


def _no_admission(side: Side) -> None:
    for path in (side.folder / "admissions").iterdir():
        path.unlink()


def _damaged_context(side: Side) -> None:
    (path,) = (side.folder / "admissions").glob("*.context")
    path.write_bytes(path.read_bytes()[:-1] + b"\0")


def _damaged_admission(side: Side) -> None:
    (path,) = (side.folder / "admissions").glob("*.json")
    path.write_text(path.read_text()[:-20])


def _no_policy(side: Side) -> None:
    (side.folder / "policy.toml").write_text("[privacy]\nmax_epsilon = many\n")


BROKEN: dict[str, Callable[[Side], None]] = {
    "keys are gone": _no_keys,
    "keys that others can read": _open_keys,
    "damaged keys": _damaged_keys,
    "no admission": _no_admission,
    "another public context": _damaged_context,
    "an admission that was cut": _damaged_admission,
    "an invalid policy": _no_policy,
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_device_that_could_not_seal_is_not_charged(name: str, side: Side) -> None:
    side.admit("first")
    side.train()
    assert side.charges() == [("first", 1)]
    BROKEN[name](side)
    with pytest.raises((PolicyViolation, ConfigError)) as refused:
        side.train(number=2)
    assert is_final(refused.value)
    assert side.charges() == [("first", 1)]
