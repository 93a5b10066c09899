"""A real device obeys its own server, once; everything else gets a refusal and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, Message, RecordDict

from calyx.client import app as device_app
from calyx.client.instructions import accept
from calyx.shared.errors import PolicyViolation, ProtocolError
from calyx.shared.protocol.refusals import read_failure
from calyx.shared.protocol.signatures.instruction import sign
from calyx.simulations.engines.grid import take_identity

KEY = Ed25519PrivateKey.generate()
CONFIG: dict[str, Any] = {"seed": 1}
NODE = 9


@pytest.fixture(autouse=True)
def _identity() -> None:
    take_identity()


def context(tmp_path: Path, run_config: dict[str, Any] | None = None, **changes: Any) -> Context:
    node = {
        "client-name": "clinic",
        "ledger": str(tmp_path / "ledger"),
        "policy": str(tmp_path / "policy"),
        "server-key": KEY.public_key().public_bytes_raw().hex(),
        "sequence": str(tmp_path / "instructions.last"),
        **changes,
    }
    node = {key: value for key, value in node.items() if value is not None}
    return Context(1, NODE, node, RecordDict(), CONFIG if run_config is None else run_config)


def message(number: int, key: Ed25519PrivateKey = KEY, name: str = "clinic") -> Message:
    made = Message(RecordDict(), NODE, "query")
    sign(key, made, name, CONFIG, number)
    return made


def test_each_message_is_obeyed_once_and_only_forward_also_after_a_crash(tmp_path: Path) -> None:
    kept = tmp_path / "instructions.last"
    accept(message(5), context(tmp_path))
    assert kept.read_text() == "5"  # before anything is done about it
    for old in (5, 4, 1):
        with pytest.raises(ProtocolError, match="came again, or after a newer one"):
            accept(message(old), context(tmp_path))
    accept(message(6), context(tmp_path))
    assert kept.read_text() == "6" and not kept.stat().st_mode & 0o077


def test_what_is_not_signed_for_this_device_does_not_use_up_numbers(tmp_path: Path) -> None:
    unsigned = Message(RecordDict(), NODE, "query")
    for wrong in (unsigned, message(9, Ed25519PrivateKey.generate()), message(9, name="other")):
        with pytest.raises(ProtocolError):
            accept(wrong, context(tmp_path))
    with pytest.raises(ProtocolError):
        accept(message(9), context(tmp_path, {"seed": 2}))
    assert not (tmp_path / "instructions.last").exists()
    accept(message(1), context(tmp_path))


def test_device_without_a_pinned_key_obeys_nobody(tmp_path: Path) -> None:
    for changes in ({"server-key": None}, {"server-key": "ab"}, {"sequence": None}):
        with pytest.raises(PolicyViolation, match="pinned no key"):
            accept(message(1), context(tmp_path, **changes))


def test_damaged_number_is_not_forgotten(tmp_path: Path) -> None:
    (tmp_path / "instructions.last").write_text("-1")
    with pytest.raises(ProtocolError, match="damaged"):
        accept(message(1), context(tmp_path))


def test_seeded_noise_of_a_real_device_changes_nothing_about_that(tmp_path: Path) -> None:
    """`calyx client join --simulated-noise` compares; it does not open the device to others."""
    seeded = context(tmp_path, **{"simulation-seed": 1})
    with pytest.raises(ProtocolError):
        accept(Message(RecordDict(), NODE, "query"), seeded)
    simulation = context(tmp_path, **{"simulation-seed": 1, "server-key": None, "sequence": None})
    accept(Message(RecordDict(), NODE, "query"), simulation)


@pytest.mark.parametrize("kind", ["query", "query.sealing", "train", "evaluate"])
def test_every_kind_of_message_must_be_signed(kind: str, tmp_path: Path) -> None:
    reply = device_app.app(Message(RecordDict(), NODE, kind), context(tmp_path))
    assert reply.has_error()
    assert "not signed" in read_failure(reply).reason
    assert not (tmp_path / "ledger").exists()
