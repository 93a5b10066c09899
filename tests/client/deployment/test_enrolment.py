"""Making a device: what is private stays private, and the first policy is strict."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import pytest

from calyx.client.deployment.enrolment import Enrolled, enroll, keep_records, renew_request
from calyx.client.deployment.folder import DataPlace, Device
from calyx.client.deployment.launch import _check_ready, join
from calyx.client.policy import Policy
from calyx.client.records import OwnRecords, make_importable
from calyx.shared.data.demo_share import share_of_digits
from calyx.shared.errors import ConfigError, DataError, EnrolmentError, LedgerError, UsageError
from calyx.shared.host.certificates import make_root
from calyx.shared.protocol.enrolment import read_request


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(make_root("test", 5).certificate)
    (tmp_path / "instructions.pub").write_text("cd" * 32 + "\n")
    return path


@pytest.fixture(scope="module")
def archive() -> bytes:
    return share_of_digits(0, 40, 0)


@pytest.fixture(autouse=True)
def _records(tmp_path: Path, archive: bytes) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "train.npz").write_bytes(archive)


def made(tmp_path: Path, ca: Path, **changes: object) -> Enrolled:
    data = DataPlace(source="npz", place=str(tmp_path / "records"))
    wanted = {"name": "clinic", "server": "host:1", "authority_key": "ab" * 32, "data": data}
    return enroll(tmp_path / "device", ca=ca, **{**wanted, **changes})  # type: ignore[arg-type]


def test_everything_in_the_folder_is_for_its_owner_alone(tmp_path: Path, ca: Path) -> None:
    device = made(tmp_path, ca).device
    for path in [device.directory, *device.directory.rglob("*")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_first_policy_allows_nothing_unprotected_and_nothing_unsealed(
    tmp_path: Path, ca: Path
) -> None:
    policy = Policy.load(made(tmp_path, ca).device.policy_path)
    assert policy.secure_aggregation.required and not policy.privacy.allow_unprotected
    assert policy.privacy.unit == "record" and policy.privacy.max_epsilon < 10
    assert not policy.release.metrics and policy.training.models == ()


def test_a_device_is_never_overwritten_but_can_ask_again(tmp_path: Path, ca: Path) -> None:
    first = made(tmp_path, ca)
    key = first.device.node_key_path.read_bytes()
    with pytest.raises(UsageError, match="already holds a device"):
        made(tmp_path, ca)
    second = renew_request(first.device.directory)
    assert first.device.node_key_path.read_bytes() == key
    assert second.request.nonce != first.request.nonce
    assert read_request(first.device.request_path.read_text()) == second.request


def test_request_holds_no_private_key(tmp_path: Path, ca: Path) -> None:
    device = made(tmp_path, ca).device
    text = device.request_path.read_text()
    assert "PRIVATE" not in text
    assert device.identity_path.read_bytes()[:32].hex() not in text


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"data": DataPlace(source="npz", place="/nowhere")}, DataError, "/nowhere"),
        ({"data": DataPlace(source="python", place="x")}, DataError, "MODULE:FUNCTION"),
        ({"ca": Path("/nowhere")}, UsageError, "not a readable CA certificate"),
        ({"data": DataPlace(source="idx", place="/usr")}, DataError, "/usr"),
    ],
)
def test_what_cannot_work_is_refused_before_keys_are_made(
    tmp_path: Path, ca: Path, changes: dict[str, object], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        made(tmp_path, changes.pop("ca", ca), **changes)  # type: ignore[arg-type]
    assert not (tmp_path / "device").exists()


@pytest.mark.parametrize("content", [b"label,pixel\n1,0\n", b"PK\x03\x04 cut short"])
def test_records_that_cannot_be_used_are_refused_before_keys_are_made(
    tmp_path: Path, ca: Path, content: bytes
) -> None:
    (tmp_path / "records" / "train.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"train\.npz"):
        made(tmp_path, ca)
    assert not (tmp_path / "device").exists()


def test_a_folder_of_another_format_is_refused_before_keys_are_made(
    tmp_path: Path, ca: Path
) -> None:
    place = tmp_path / "csv"
    place.mkdir()
    (place / "train.csv").write_text("label,pixel\n1,0\n")
    with pytest.raises(DataError, match="csv"):
        made(tmp_path, ca, data=DataPlace(source="idx", place=str(place)))
    assert not (tmp_path / "device").exists()


def test_an_owners_function_that_fails_is_refused_before_keys_are_made(
    tmp_path: Path, ca: Path
) -> None:
    (tmp_path / "their_records.py").write_text("def load():\n    return {}['scans']\n")
    data = DataPlace(source="python", place="their_records:load", python_path=str(tmp_path))
    with pytest.raises(DataError, match="KeyError"):
        made(tmp_path, ca, data=data)
    assert not (tmp_path / "device").exists()


def test_the_records_of_a_device_that_is_there_are_not_replaced(
    tmp_path: Path, ca: Path, archive: bytes
) -> None:
    device = tmp_path / "device"
    made(tmp_path, ca, data=keep_records(device, archive))
    with pytest.raises(UsageError, match="already holds a device"):
        keep_records(device, b"other records")
    assert (device / "data" / "train.npz").read_bytes() == archive


def test_key_that_others_can_read_is_not_used(tmp_path: Path, ca: Path) -> None:
    device = made(tmp_path, ca).device
    device.node_key_path.chmod(0o644)
    with pytest.raises(EnrolmentError, match="chmod 600"):
        device.node_key()


def test_settings_that_are_wrong_are_all_named(tmp_path: Path, ca: Path) -> None:
    device = made(tmp_path, ca).device
    device.settings_path.write_text('name = ""\nserver = "x"\n[data]\nsource = "csv"\nplace = "p"')
    with pytest.raises(ConfigError) as caught:
        device.settings()
    assert {fault.key for fault in caught.value.faults} == {
        *("name", "server", "server_key", "data.source")
    }


def test_no_device_here(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="calyx client enroll"):
        Device(tmp_path).settings()


def test_owners_own_function_gives_the_records(tmp_path: Path) -> None:
    (tmp_path / "my_records.py").write_text(
        "import numpy\ndef load():\n    return numpy.ones((4, 8, 8)), [0, 1, 2, 1], 10\n"
        "def wrong():\n    return 5\n"
    )
    make_importable(str(tmp_path))
    records = OwnRecords("python", "my_records:load").viewed("image")
    assert records.input_shape == (1, 8, 8) and records.classes == 10
    assert np.array_equal(records.labels, [0, 1, 2, 1])
    with pytest.raises(DataError, match="something other than features, labels"):
        OwnRecords("python", "my_records:wrong").read()
    with pytest.raises(DataError, match="hint: name a function"):
        OwnRecords("python", "my_records:missing").read()


def test_device_that_has_lost_which_messages_it_obeyed_does_not_join(
    tmp_path: Path, ca: Path
) -> None:
    """Otherwise old ones would be obeyed again; a device that has obeyed none knows that too."""
    device = made(tmp_path, ca).device
    assert device.sequence_path.read_text() == "0"
    device.sequence_path.unlink()
    with pytest.raises(UsageError, match=r"instructions\.last is gone"):
        join(device.directory)


def test_device_that_has_only_refused_joins_again_and_one_that_lost_its_ledger_does_not(
    tmp_path: Path, ca: Path
) -> None:
    """Anyone on the way to the server can have a message refused, before there is a ledger."""
    device = made(tmp_path, ca).device
    device.status_path.write_text(json.dumps({"messages": 1, "refusals": 1}))
    _check_ready(device, accept_overlap=False)
    device.status_path.write_text(json.dumps({"messages": 2, "refusals": 1, "trained": 1}))
    with pytest.raises(LedgerError, match="is gone, so it is unknown"):
        _check_ready(device, accept_overlap=False)
