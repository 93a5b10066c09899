"""One set of records has one budget, no matter how many of a user's folders hold it."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

from calyx.client.deployment.enrolment import enroll
from calyx.client.deployment.folder import DataPlace, Device
from calyx.client.ledger.data_registry import FILE_NAME, DataRegistry, record_hashes
from calyx.client.ledger.ledger import Ledger
from calyx.client.node import Node
from calyx.shared.data import Dataset
from calyx.shared.errors import LedgerError
from calyx.shared.host.certificates import make_root

KEY = b"k" * 32


def dataset(records: int = 20, *, seed: int = 1) -> Dataset:
    rng = np.random.default_rng(seed)
    features = rng.random((records, 1, 4, 4), dtype=np.float32)
    return Dataset(features, rng.integers(0, 3, records), 3)


@pytest.fixture
def registry(tmp_path: Path) -> DataRegistry:
    return DataRegistry(tmp_path / "state" / "calyx")


def place(root: Path, name: str) -> Path:
    """Path of a ledger in a device's folder, which exists as after an enrolment."""
    (root / name).mkdir(mode=0o700)
    return root / name / "ledger.sqlite"


def charged(path: Path, records: Dataset, registry: DataRegistry) -> None:
    """As at the first charge: the ledger is there, and the registry knows its number."""
    Ledger.open(path, data_fingerprint=records.fingerprint).close()
    registry.claim(records, path)


def test_a_second_folder_with_the_same_records_is_refused_and_the_first_is_not(
    registry: DataRegistry, tmp_path: Path
) -> None:
    first, second = place(tmp_path, "first"), place(tmp_path, "second")
    registry.claim(dataset(), first)
    with pytest.raises(
        LedgerError, match=r"^20 of these 20 records (?s:.*)hint: use the device in .*/first"
    ):
        registry.claim(dataset(), second)
    registry.claim(dataset(), first)
    registry.claim(dataset(seed=2), second)


def test_other_order_format_shape_or_one_record_more_does_not_make_them_other_records(
    registry: DataRegistry, tmp_path: Path
) -> None:
    records, other = dataset(), dataset(5, seed=2)
    registry.claim(records, place(tmp_path, "first"))
    order = np.random.default_rng(0).permutation(len(records))
    flat = records.features.reshape(20, 4, 4)
    for changed in (
        Dataset(records.features[order], records.labels[order], 3),
        Dataset(flat, records.labels, 3),
        Dataset(records.features, records.labels, 4),
    ):
        with pytest.raises(LedgerError, match=r"^20 of these 20"):
            registry.claim(changed, tmp_path / "second" / "ledger.sqlite")
    mixed = Dataset(
        np.concatenate([records.features[:3], other.features]),
        np.concatenate([records.labels[:3], other.labels]),
        3,
    )
    with pytest.raises(LedgerError, match=r"^3 of these 8"):
        registry.claim(mixed, tmp_path / "second" / "ledger.sqlite")


def test_an_owner_can_accept_that_epsilons_add_up_and_only_for_these_records(
    registry: DataRegistry, tmp_path: Path
) -> None:
    first, second = place(tmp_path, "first"), place(tmp_path, "second")
    registry.claim(dataset(), first)
    registry.claim(dataset(8, seed=2), second)
    registry.claim(dataset(), second, accept_overlap=True)
    registry.claim(dataset(), second)
    charged(second, dataset(), registry)
    with pytest.raises(LedgerError, match="20 of these 20"):
        registry.claim(dataset(), place(tmp_path, "third"))


def test_a_folder_that_was_moved_keeps_its_account(registry: DataRegistry, tmp_path: Path) -> None:
    first = place(tmp_path, "first")
    charged(first, dataset(), registry)
    first.parent.rename(tmp_path / "moved")
    moved = tmp_path / "moved" / "ledger.sqlite"
    registry.claim(dataset(), moved)
    with pytest.raises(LedgerError, match=r"/moved/ledger\.sqlite"):
        registry.claim(dataset(), place(tmp_path, "second"))


def test_a_copied_folder_is_refused_as_long_as_the_other_is_there(
    registry: DataRegistry, tmp_path: Path
) -> None:
    first = place(tmp_path, "first")
    charged(first, dataset(), registry)
    shutil.copytree(first.parent, tmp_path / "copy")
    with pytest.raises(LedgerError, match=r"is a copy of .*/first/"):
        registry.claim(dataset(), tmp_path / "copy" / "ledger.sqlite")
    shutil.rmtree(first.parent)
    registry.claim(dataset(), tmp_path / "copy" / "ledger.sqlite")


def test_deleting_a_ledger_does_not_give_the_budget_back(
    registry: DataRegistry, tmp_path: Path
) -> None:
    first = place(tmp_path, "first")
    charged(first, dataset(), registry)
    shutil.rmtree(first.parent)
    with pytest.raises(LedgerError, match="which is gone; .*\nhint: restore it"):
        registry.claim(dataset(), place(tmp_path, "second"))
    first.parent.mkdir()
    for _ in range(2):  # missing, and then created again at the same place
        with pytest.raises(LedgerError, match="is gone or was replaced\nhint: restore it"):
            registry.claim(dataset(), first)
        Ledger.open(first, data_fingerprint=dataset().fingerprint).close()


def test_a_device_that_never_answered_and_is_gone_holds_nothing(
    registry: DataRegistry, tmp_path: Path
) -> None:
    first = place(tmp_path, "first")
    registry.claim(dataset(), first)
    first.parent.rmdir()
    registry.claim(dataset(), place(tmp_path, "second"))


def test_before_the_first_charge_records_may_still_change_and_not_afterwards(
    registry: DataRegistry, tmp_path: Path
) -> None:
    first = place(tmp_path, "first")
    registry.claim(dataset(), first)
    registry.claim(dataset(12, seed=2), first)
    registry.claim(dataset(), place(tmp_path, "second"))
    charged(first, dataset(12, seed=2), registry)
    with pytest.raises(LedgerError, match="belongs to other records"):
        registry.claim(dataset(13, seed=3), first)


def test_the_registry_is_for_its_user_alone_and_holds_no_hash_anybody_could_make(
    registry: DataRegistry, tmp_path: Path
) -> None:
    records = dataset()
    registry.claim(records, place(tmp_path, "first"))
    assert stat.S_IMODE(registry.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(registry.path.parent.stat().st_mode) == 0o700
    content = registry.path.read_bytes()
    assert records.fingerprint.encode() not in content
    for key in (b"", KEY):
        assert record_hashes(records, key)[:1].tobytes() not in content
    registry.path.chmod(0o644)
    with pytest.raises(LedgerError, match="chmod 600"):
        registry.claim(records, tmp_path / "first" / "ledger.sqlite")


def test_hashes_are_of_values(registry: DataRegistry) -> None:
    one = dataset()
    assert len(record_hashes(one, KEY)) == 20
    zero = Dataset(np.zeros((1, 1, 4, 4), np.float32), np.zeros(1, np.int64), 2)
    minus = Dataset(-zero.features, zero.labels, 2)
    assert record_hashes(zero, KEY) == record_hashes(minus, KEY)
    assert record_hashes(zero, KEY) != record_hashes(zero, KEY[::-1] + b"x")
    labelled = Dataset(zero.features, zero.labels + 1, 2)
    assert record_hashes(zero, KEY) != record_hashes(labelled, KEY)


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + b"\xff" * 200])
def test_what_is_no_registry_lets_nothing_pass(registry: DataRegistry, content: bytes) -> None:
    registry.path.parent.mkdir(parents=True, mode=0o700)
    registry.path.write_bytes(content)
    registry.path.chmod(0o600)
    with pytest.raises(LedgerError, match="cannot be used") as caught:
        registry.claim(dataset(), registry.path.parent / "ledger.sqlite")
    assert "\n" not in str(caught.value)


def test_a_link_in_its_place_is_not_followed(registry: DataRegistry, tmp_path: Path) -> None:
    registry.path.parent.mkdir(parents=True, mode=0o700)
    registry.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LedgerError, match="cannot be used"):
        registry.claim(dataset(), tmp_path / "ledger.sqlite")
    assert not (tmp_path / "elsewhere").exists()


def test_where_a_user_has_no_home_he_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    with pytest.raises(LedgerError, match="XDG_STATE_HOME"):
        DataRegistry.of_user()


class TestDevices:
    """The same through what an owner does: enrolling, and answering a server."""

    @pytest.fixture
    def ca(self, tmp_path: Path) -> Path:
        path = tmp_path / "ca.pem"
        path.write_bytes(make_root("test", 5).certificate)
        return path

    def enrolled(self, tmp_path: Path, ca: Path, name: str, *, accept: bool = False) -> Device:
        records = dataset()
        own = tmp_path / f"{name}.npz"
        np.savez(own, x=records.features[:, 0], y=records.labels, classes=3)
        return enroll(
            tmp_path / name,
            name=name,
            server="127.0.0.1:1",
            ca=ca,
            server_key="ab" * 32,
            authority_key="",
            data=DataPlace(source="npz", place=str(own)),
            accept_overlap=accept,
        ).device

    def test_a_second_enrolment_is_refused_before_anything_is_made(
        self, tmp_path: Path, ca: Path
    ) -> None:
        self.enrolled(tmp_path, ca, "first")
        with pytest.raises(LedgerError, match=r"use the device in .*/first, or"):
            self.enrolled(tmp_path, ca, "second")
        assert not (tmp_path / "second").exists()
        self.enrolled(tmp_path, ca, "second", accept=True)

    def test_a_ledger_is_not_even_opened_for_records_of_another(
        self, tmp_path: Path, ca: Path
    ) -> None:
        first = self.enrolled(tmp_path, ca, "first")
        states = Path(os.environ["XDG_STATE_HOME"]) / "calyx"
        (states / FILE_NAME).unlink()  # as if both had been made before there was a registry
        second = self.enrolled(tmp_path, ca, "second")
        node = Node.from_settings(second.node_settings())
        node.ledger(dataset()).close()
        late = Node.from_settings(first.node_settings())
        with pytest.raises(LedgerError, match="20 of these 20 records"):
            late.ledger(dataset())
        assert not first.ledger_path.exists()
        node.ledger(dataset()).close()
