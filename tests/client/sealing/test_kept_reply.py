"""The same instruction gets the same sealed bytes again, and is charged once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.app import RecordDict

from calyx.authority.local import LocalAuthority
from calyx.client.sealing.identity import ContributorIdentity
from calyx.shared.errors import BudgetExceeded, PolicyViolation
from calyx.shared.host.private_files import private_directory
from calyx.shared.protocol.sealed.messages import read_sealed_reply
from tests.client.sealed_device import OTHERS, POLICY, Side


@pytest.fixture
def side(tmp_path: Path) -> Iterator[Side]:
    with LocalAuthority(tmp_path / "authority", min_contributors=2) as authority:
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
    from calyx.shared.protocol.sealed import ciphertext_file

    sealed, receipt = read_sealed_reply(side.train())
    chunks, fields = ciphertext_file.read(side.kept)
    assert chunks == sealed.chunks and fields["receipt"] == receipt.to_json()
    assert set(fields) == {"run", "round", "instruction", "parameters", "context", "receipt"}


def test_anything_else_asked_is_a_new_release_and_is_charged(side: Side) -> None:
    first = side.train()
    assert not same(first, side.train(shift=0.01))
    assert side.charges() == [("first", 1)] * 2
    # The first one is no longer kept; that instruction is a new release too, beyond the budget.
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


def test_reply_for_another_key_of_the_same_run_is_not_sent(side: Side) -> None:
    """An authority that lost its folder makes a new key; no one can open the old ciphertexts."""
    first = side.train()
    folder = side.folder / "made again"
    private_directory(folder)
    shutil.copy(side.folder / "authority" / "identity.key", folder)
    with LocalAuthority(folder, min_contributors=2) as renewed:
        for name in ("device", *OTHERS):
            identity = ContributorIdentity.load(side.folder / f"{name}.key")
            renewed.enrolments.approve([identity.request(name)])
        side.authority = renewed
        side.admit("first")
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
