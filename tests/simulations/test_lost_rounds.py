"""Whole runs that go wrong: no client pays for more than the rounds it takes to notice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from numpy.typing import NDArray

import calyx.client.round as client_round
import calyx.client.sealing.sealing as client_sealing
import calyx.shared.models.tryout as tryout
from calyx.client.ledger.ledger import Budget, Ledger
from calyx.client.sealing.sealing import SealingState
from calyx.shared.config import Config
from calyx.shared.encryption import PublicSealer, SealingParameters, pack
from calyx.shared.errors import RoundError
from calyx.shared.protocol.sealed.messages import sealed_reply
from calyx.shared.protocol.sealed.receipts import Receipt, fresh_nonce
from calyx.simulations import run
from calyx.simulations.presets import resolve
from calyx.simulations.run_folder import RunFolder
from tests.simulations.test_sealed import federate, with_record

ROUNDS, CLIENTS = 6, 4
CONFIG = resolve(
    "digits-attention",
    (
        f"training.rounds={ROUNDS}",
        f"federation.clients={CLIENTS}",
        "secure_aggregation.min_contributors=3",
        "data.max_records=400",
        "privacy.epsilon=8",
    ),
)
EVIL = "3"


def charges(folder: Path) -> list[int]:
    counts = []
    for number in range(CLIENTS):
        with Ledger.read_only(RunFolder(folder).ledger_path(number)) as ledger:
            counts.append(len(ledger.entries()))
    return counts


def journal(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def test_forged_receipt_costs_nobody_a_round(tmp_path: Path) -> None:
    def forge(record: ConfigRecord) -> None:
        receipt = json.loads(str(record["receipt"]))
        receipt["signature"] = "00" * 64
        record["receipt"] = json.dumps(receipt)

    rounds, _, _ = federate(CONFIG, tmp_path, {3: with_record(forge)})
    assert [e["skipped"] for e in rounds] == [False] * ROUNDS
    (note,) = rounds[0]["rejected"]
    assert note["client"] == EVIL and "not signed with the key" in note["reason"]
    assert charges(tmp_path) == [ROUNDS, ROUNDS, ROUNDS, 1]


def test_nonce_of_another_client_is_rejected(tmp_path: Path) -> None:
    """Two clients that work together; the key authority would refuse the sum and name no one."""
    seen: list[str] = []

    def note(message: Message, honest: Message) -> Message:
        seen.append(json.loads(str(honest.content["sealed"]["receipt"]))["nonce"])  # type: ignore[index]
        return honest

    real_nonce = client_sealing.fresh_nonce
    config = CONFIG.model_copy(
        update={"training": CONFIG.training.model_copy(update={"rounds": 1})}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client_sealing, "fresh_nonce", lambda: seen[0] if seen else real_nonce())
        (only,), _, _ = federate(config, tmp_path, {0: note})
    assert [n["client"] for n in only["rejected"]] == ["1", "2", "3"]
    assert all("nonce" in n["reason"] for n in only["rejected"])


@pytest.fixture
def out_of_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """Client 3 seals a value beyond its field, with a right tag."""
    honest = SealingState.seal

    def seal(self: SealingState, *arguments: Any) -> RecordDict:
        if self.client != EVIL:
            return honest(self, *arguments)
        values, number, terms = arguments
        name, expected = terms.run, terms.parameters
        admission, context = self._admitted(name)[:2]
        identity = client_sealing.ContributorIdentity.load(self.identity_path)
        tags = admission.open(identity.sealing, self.authority_key, context)
        slots, nonce = pack(values, expected), fresh_nonce()
        slots[-1, -2] += 2 ** (expected.field_bits * (expected.fields_per_slot - 1))
        slots = tags.tagged(slots, expected.plain_modulus, number, nonce)
        sealed = PublicSealer(expected, context).seal_slots(slots)
        receipt = Receipt(name, number, EVIL, expected.digest, sealed.digest, nonce)
        return sealed_reply(sealed, receipt.signed(identity.signing))

    monkeypatch.setattr(SealingState, "seal", seal)


@pytest.mark.usefixtures("out_of_range")
def test_values_out_of_range_cost_two_rounds_and_not_the_budget(tmp_path: Path) -> None:
    with pytest.raises(RoundError, match=r"sums of rounds 1 and 2 .*range.*the run stops here"):
        federate(CONFIG, tmp_path)
    assert charges(tmp_path) == [2] * CLIENTS
    assert [(e["round"], e["fault"]) for e in journal(tmp_path, "round")] == [
        (1, "refused"),
        (2, "refused"),
    ]


Poison = Callable[[int], bool]


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Poison], None]]:
    """Client 3 uses all of its fields, in some of the rounds, against what the others send."""
    when: list[Poison] = []
    honest, honest_train = client_round.integers_to_seal, client_round.train_round
    playing = {"client": ""}

    def train(content: RecordDict, config: Config, node: Any) -> RecordDict:
        playing["client"] = node.name
        return honest_train(content, config, node)

    def integers(
        vector: NDArray[np.float64], config: Config, plan: Any, number: int, noise: Any
    ) -> tuple[NDArray[np.int64], SealingParameters]:
        values, parameters = honest(vector, config, plan, number, noise)
        if playing["client"] == EVIL and any(poisons(number) for poisons in when):
            values = np.where(values < 0, parameters.value_bound, -parameters.value_bound)
        return values, parameters

    monkeypatch.setattr(client_round, "train_round", train)
    monkeypatch.setattr(client_round, "integers_to_seal", integers)
    yield when.append


def test_poisoned_sum_moves_the_model_by_nothing(
    poison: Callable[[Poison], None], tmp_path: Path
) -> None:
    poison(lambda number: number in (2, 5))
    rounds, _, _ = federate(CONFIG, tmp_path / "poisoned")
    assert [e["fault"] for e in rounds] == ["", "unfit", "", "", "unfit", ""]
    assert all("grid steps long" in rounds[n]["reason"] for n in (1, 4))
    # The same noise, two steps fewer: as good as honest rounds of that number.
    assert rounds[-1]["accuracy"] > rounds[0]["accuracy"]
    weights = [e["loss"] for e in rounds]
    assert np.isfinite(weights).all() and max(weights) < 5


def test_run_stops_after_three_poisoned_sums(
    poison: Callable[[Poison], None], tmp_path: Path
) -> None:
    poison(lambda number: number != 2)
    with pytest.raises(RoundError, match=r"cannot add up to the sums of rounds 1, 3 and 4"):
        federate(CONFIG, tmp_path)
    assert charges(tmp_path) == [4] * CLIENTS
    rounds = journal(tmp_path, "round")
    assert [e["fault"] for e in rounds] == ["unfit", "", "unfit", "unfit"]


def spend(folder: Path, number: int, charges: int) -> None:
    """Another run has used up a part of a client's budget."""
    from calyx.client.node import Node
    from calyx.shared.privacy.event import PrivacyEvent

    run_folder = RunFolder(folder)
    node = Node.from_settings(
        {
            "partition-id": number,
            "partition-file": str(run_folder.partition_path),
            "simulation-seed": CONFIG.seed,
            "ledger": str(run_folder.ledger_path(number)),
        }
    )
    with node.ledger(node.records(CONFIG)) as ledger:
        ledger.charge(
            run="an earlier run",
            round=1,
            instruction="0" * 64,
            event=PrivacyEvent("gaussian", "record", 2.0, "full", 1.0, charges),
            budget=Budget(1000.0, 1e-4, "record"),
            repeatable=False,
        )


def prepared(folder: Path) -> None:
    from calyx.simulations.run import partition_of

    RunFolder(folder).prepare(CONFIG, partition_of(CONFIG))


def test_client_that_cannot_afford_all_of_it_is_left_out_before_it_is_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(tmp_path)
    spend(tmp_path, 1, 1)
    monkeypatch.setattr(RunFolder, "prepare", lambda *_: None)
    rounds, _, _ = federate(CONFIG, tmp_path)
    assert [(e["asked"], e["ok"], e["skipped"]) for e in rounds] == [(3, 3, False)] * ROUNDS
    (told,) = journal(tmp_path, "declined")
    (note,) = told["clients"]
    assert note["client"] == "1" and "6 more rounds" in note["reason"]
    assert charges(tmp_path) == [ROUNDS, 1, ROUNDS, ROUNDS]


def test_run_that_too_few_can_afford_ends_before_anybody_is_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(tmp_path)
    for number in (0, 2):
        spend(tmp_path, number, 1)
    monkeypatch.setattr(RunFolder, "prepare", lambda *_: None)
    with pytest.raises(RoundError, match=r"2 of 4 clients .* needs 3 \(0: 6 more .*no client was"):
        federate(CONFIG, tmp_path)
    assert charges(tmp_path) == [1, 0, 1, 0]
    assert [n["client"] for n in journal(tmp_path, "declined")[0]["clients"]] == ["0", "2"]
    assert not (tmp_path / "checkpoints").exists()


def test_model_that_cannot_be_trained_privately_ends_the_run_before_any_charge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mixing_in_simulation.py").write_text(
        "from torch import nn\n"
        "def make(shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    # As if the server's operator had not tried it, or had other code.
    monkeypatch.setattr(tryout, "try_model", lambda *_: None)
    settings = [
        "model.name=mixing_in_simulation:make",
        "federation.clients=3",
        "privacy.noise=local",
        "secure_aggregation.scheme=none",
    ]
    with pytest.raises(
        RoundError, match=r"0 of 3 clients .*mixes the records.*no client was charged"
    ):
        run(settings=settings, out=tmp_path / "run", workers=1)
