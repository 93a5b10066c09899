"""Making a device: what is private stays private, and the first policy is strict."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

from client.device import DataPlace, Device
from client.enrolment import Enrolled, enroll, renew_request
from client.own_data import load_own, make_importable
from client.policy import Policy
from shared.certificates import make_root
from shared.errors import ConfigError, DataError, EnrolmentError, UsageError
from shared.protocol.enrolment import read_request


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(make_root("test", 5).certificate)
    (tmp_path / "instructions.pub").write_text("cd" * 32 + "\n")
    return path


def made(tmp_path: Path, ca: Path, **changes: object) -> Enrolled:
    data = DataPlace(source="npz", place=str(tmp_path))
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
    with pytest.raises(UsageError, match="there is a device"):
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
        ({"data": DataPlace(source="python", place="x")}, DataError, "module:function"),
        ({"ca": Path("/nowhere")}, UsageError, "no CA certificate"),
    ],
)
def test_what_cannot_work_is_refused_before_keys_are_made(
    tmp_path: Path, ca: Path, changes: dict[str, object], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        made(tmp_path, changes.pop("ca", ca), **changes)  # type: ignore[arg-type]
    assert not (tmp_path / "device").exists()


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
    records = load_own("python", "my_records:load", "image")
    assert records.input_shape == (1, 8, 8) and records.classes == 10
    assert np.array_equal(records.labels, [0, 1, 2, 1])
    with pytest.raises(DataError, match="must return features, labels"):
        load_own("python", "my_records:wrong", "image")
    with pytest.raises(DataError, match="must name a function"):
        load_own("python", "my_records:missing", "image")
