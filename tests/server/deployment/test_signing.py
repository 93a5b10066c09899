"""The device that a message is for can obey what the server signed, in the order sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Message, RecordDict

from calyx.server.deployment import setup, signing
from calyx.server.deployment.folder import ServerFolder
from calyx.server.deployment.signing import Signer, instruction_key
from calyx.shared.errors import ProtocolError, UsageError
from calyx.shared.host.sequence_file import SequenceFile
from calyx.shared.protocol.signatures.instruction import SIGNED, verify

CONFIG = {"seed": 1}


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    setup.init(tmp_path / "server")
    return ServerFolder(tmp_path / "server")


def messages(nodes: list[int]) -> list[Message]:
    shared = ConfigRecord({"round": 1})
    return [Message(RecordDict({"a": shared}), node, "train") for node in nodes]


def numbers(made: list[Message]) -> list[int]:
    return [int(m.content.config_records[SIGNED]["sequence"]) for m in made]  # type: ignore[arg-type]


def test_devices_verify_with_the_file_that_their_owners_get(folder: ServerFolder) -> None:
    public = bytes.fromhex((folder.for_devices / "instructions.pub").read_text())
    sequence = SequenceFile(folder.instruction_sequence_path)
    signer = Signer(instruction_key(folder), sequence, lambda: {2: "a", 3: "b"}, CONFIG)
    made = messages([2, 3, 4])
    signer.sign(made)
    first, second, third = numbers(made)
    assert verify(public, made[0], "a", 2, CONFIG) == first
    with pytest.raises(ProtocolError):
        verify(public, made[1], "a", 3, CONFIG)
    with pytest.raises(ProtocolError):  # no device was approved as node 4
        verify(public, made[2], "c", 4, CONFIG)
    assert first < second < third <= sequence.last()


def test_numbers_grow_through_restarts_and_when_the_clock_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, seen = Ed25519PrivateKey.generate(), list[int]()
    for now in (1000, 10, 2000, 2000, 1):
        monkeypatch.setattr(signing.time, "time_ns", lambda now=now: now)
        made = messages([2, 3])
        Signer(key, SequenceFile(tmp_path / "last"), dict, CONFIG).sign(made)
        seen += numbers(made)
    assert seen == sorted(set(seen)) and seen[0] == 1000 and 2000 in seen


def test_lost_key_is_not_replaced(folder: ServerFolder) -> None:
    folder.instruction_key_path.unlink()
    with pytest.raises(UsageError, match="restore it from a copy"):
        instruction_key(folder)


@pytest.mark.parametrize("text", ["", "-1", "12x", "9" * 5000, "5\n"])
def test_a_number_that_cannot_be_read_is_not_begun_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "last").write_text(text)
    with pytest.raises(ProtocolError, match="is damaged\nhint: restore it"):
        SequenceFile(tmp_path / "last").last()
