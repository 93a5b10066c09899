"""The same instruction gets the same sealed bytes again, and is charged once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict

from authority.local import LocalAuthority
from client.identity import ContributorIdentity
from client.node import Node
from client.round import train_round
from shared.config.load import build, from_settings
from shared.data import load_folder
from shared.errors import BudgetExceeded, PolicyViolation
from shared.models import build_model
from shared.models.vector import dimension
from shared.privacy.plan import make_plan
from shared.protocol.arrays import to_record, weights_of
from shared.protocol.messages import TrainInstruction
from shared.protocol.sealing import SealingOffer, read_sealed_reply, sealing_parameters, sum_shape

CONFIG = build(
    from_settings(
        [
            "training.rounds=2",
            "federation.clients=2",
            "privacy.noise=distributed",
            "privacy.sampling=full",
            "secure_aggregation.scheme=bfv",
            "secure_aggregation.min_contributors=2",
            "data.max_records=100",
        ]
    )
)
POLICY = """
[privacy]
max_epsilon = 8.0
max_delta = 1e-4
unit = "any"
noise = ["distributed"]
[release]
record_counts = true
"""


class Side:
    """A real device with system noise, and what a server would send it."""

    def __init__(self, folder: Path, authority: LocalAuthority) -> None:
        self.folder, self._authority = folder, authority
        identity = ContributorIdentity.create(folder / "device.key")
        other = ContributorIdentity.create(folder / "other.key")
        authority.roster.approve([identity.request("device"), other.request("other")])
        (folder / "policy.toml").write_text(POLICY)
        own = load_folder(CONFIG.data).subset(np.arange(60))
        np.savez(folder / "own.npz", x=own.features[:, 0], y=own.labels, classes=np.int64(10))
        self.node = Node.from_settings(
            {
                "client-name": "device",
                "data-source": "npz",
                "data-directory": str(folder / "own.npz"),
                "ledger": str(folder / "ledger.sqlite"),
                "policy": str(folder / "policy.toml"),
                "identity": str(folder / "device.key"),
                "authority-key": authority.verify_key.hex(),
            }
        )
        self.model = build_model(CONFIG.model, (1, 8, 8), 10, CONFIG.seed)
        size = dimension(self.model)
        self.plan = make_plan(CONFIG, 60, sum_shape(CONFIG, size))
        self.parameters = sealing_parameters(CONFIG, self.plan, size)

    def admit(self, run: str) -> None:
        opening = self._authority.open_run(run, self.parameters, 2, ["device", "other"])
        admission = opening.admissions["device"]
        offer = SealingOffer(run, self.parameters, opening.public_context, admission)
        self.node.sealing().accept(offer, CONFIG)

    def train(self, run: str = "first", number: int = 1, shift: float = 0.0) -> RecordDict:
        arrays = to_record({k: w + w.dtype.type(shift) for k, w in weights_of(self.model).items()})
        instruction = TrainInstruction(run, number, self.plan, 0.0).to_record()
        return train_round(
            RecordDict({"arrays": arrays, "instruction": instruction}), CONFIG, self.node
        )

    def charges(self) -> list[tuple[str, int]]:
        with self.node.ledger(self.node.records(CONFIG)) as ledger:
            return [(entry.run, entry.round) for entry in ledger.entries()]

    @property
    def kept(self) -> Path:
        (path,) = (self.folder / "admissions").glob("*.last-reply")
        return path


@pytest.fixture
def side(tmp_path: Path) -> Iterator[Side]:
    with LocalAuthority(tmp_path / "authority") as authority:
        made = Side(tmp_path, authority)
        made.admit("first")
        yield made


def same(one: RecordDict, other: RecordDict) -> bool:
    return read_sealed_reply(one) == read_sealed_reply(other)


def test_repeated_instruction_gets_the_same_bytes_and_costs_nothing(side: Side) -> None:
    first = side.train()
    assert same(first, side.train()) and same(first, side.train())
    assert side.charges() == [("first", 1)]
    assert side.kept.stat().st_mode & 0o777 == 0o600


def test_the_file_holds_ciphertexts_and_a_receipt_only(side: Side) -> None:
    from shared.protocol import sealed_file

    sealed, receipt = read_sealed_reply(side.train())
    chunks, fields = sealed_file.read(side.kept)
    assert chunks == sealed.chunks and fields["receipt"] == receipt.to_json()
    assert set(fields) == {"run", "round", "instruction", "parameters", "context", "receipt"}


def test_anything_else_asked_is_a_new_release_and_is_charged(side: Side) -> None:
    first = side.train()
    assert not same(first, side.train(shift=0.01))
    assert side.charges() == [("first", 1)] * 2
    # The first one is not kept any more; that instruction is a new release too, beyond the budget.
    with pytest.raises(BudgetExceeded):
        side.train()


def test_next_round_is_new_and_the_last_one_kept(side: Side) -> None:
    first, second = side.train(), side.train(number=2)
    assert not same(first, second) and same(second, side.train(number=2))
    assert side.charges() == [("first", 1), ("first", 2)]


def test_another_run_is_new(side: Side) -> None:
    first = side.train()
    side.admit("second")
    assert not same(first, side.train("second"))
    assert side.charges() == [("first", 1), ("second", 1)]


def test_reply_for_another_key_of_the_same_run_is_not_sent(
    side: Side, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An authority that lost its folder makes a new key; nobody can open the old ciphertexts."""
    first = side.train()
    folder = side.folder / "admissions"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    side._authority.close_run("first")
    side.admit("again")
    for path in before:
        if path.suffix in (".json", ".context"):
            (new,) = (p for p in folder.glob(f"*{path.suffix}") if p not in before)
            path.write_bytes(new.read_bytes())
    assert not same(first, side.train())
    assert side.charges() == [("first", 1)] * 2


def test_damaged_file_is_not_used_and_the_round_charged(side: Side) -> None:
    first = side.train()
    content = bytearray(side.kept.read_bytes())
    content[-1] ^= 1
    side.kept.write_bytes(content)
    assert not same(first, side.train())
    side.kept.write_bytes(b"short")
    with pytest.raises(BudgetExceeded):
        side.train()
    assert side.charges() == [("first", 1)] * 2


def test_ledger_without_the_charge_is_charged_now(side: Side) -> None:
    assert side.charges() == []
    before = (side.folder / "ledger.sqlite").read_bytes()
    first = side.train()
    (side.folder / "ledger.sqlite").write_bytes(before)
    assert same(first, side.train())
    assert side.charges() == [("first", 1)]


def test_owner_who_has_become_stricter_refuses_although_it_is_kept(side: Side) -> None:
    side.train()
    path = side.folder / "policy.toml"
    path.write_text(POLICY.replace("8.0", "0.5"))
    with pytest.raises(PolicyViolation, match=r"at most 0\.5"):
        side.train()


def test_device_that_was_not_admitted_is_not_charged(side: Side) -> None:
    with pytest.raises(PolicyViolation, match="not admitted"):
        side.train("other run")
    assert side.charges() == []
