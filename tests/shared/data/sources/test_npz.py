from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calyx.shared.config.schema import DataConfig
from calyx.shared.data import load_folder, load_split
from calyx.shared.data.sources.npz import read_npz
from calyx.shared.errors import DataError

X = np.random.default_rng(0).integers(0, 256, (20, 4, 4), dtype=np.uint8)
Y = np.arange(20) % 4


def config(path: Path, **more: object) -> DataConfig:
    return DataConfig.model_validate({"source": "npz", "directory": str(path), **more})


def test_own_test_set_is_used_and_bytes_are_scaled(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x_train=X, y_train=Y, x_test=X[:6], y_test=Y[:6])
    for place in (tmp_path, tmp_path / "set.npz"):
        split = load_split(config(place), 0)
        assert np.allclose(split.train.features[:, 0], X / 255)
        assert split.train.labels.tolist() == Y.tolist()
        assert len(split.test) == 6


def test_without_a_test_set_a_share_is_held_out(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "set.npz", x=X, y=Y)
    split = load_split(config(tmp_path, test_fraction=0.25), 0)
    assert (len(split.train), len(split.test)) == (15, 5)
    assert len(load_folder(config(tmp_path))) == 20


def test_two_archives_are_training_and_test_set(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", x=X, y=Y)
    np.savez(tmp_path / "test.npz", x=X[:5], y=Y[:5])
    split = load_split(config(tmp_path), 0)
    assert (len(split.train), len(split.test)) == (20, 5)


def test_floats_are_kept_as_they_are(tmp_path: Path) -> None:
    values = np.linspace(-700, 700, 60).reshape(20, 3)
    np.savez(tmp_path / "set.npz", x=values, y=Y)
    data = load_folder(config(tmp_path, view="sequence"))
    assert data.features.shape == (20, 3, 1)
    assert np.array_equal(data.features[:, :, 0], values.astype(np.float32))


def test_sequences_are_kept_and_get_a_channel_as_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=X[:, :3], y=Y)
    assert load_folder(config(tmp_path, view="sequence")).input_shape == (3, 4)
    assert load_folder(config(tmp_path)).input_shape == (1, 3, 4)


@pytest.mark.parametrize("ids", [Y * 100, np.array([f"device {y}" for y in Y])])
def test_client_ids_follow_their_records(tmp_path: Path, ids: np.ndarray) -> None:
    np.savez(tmp_path / "set.npz", x=X, y=Y, who=ids)
    split = load_split(config(tmp_path, partition="natural", natural_id="who"), 0)
    assert split.train.natural_ids is not None
    by_label = dict(zip(Y.tolist(), ids.tolist(), strict=True))
    assert split.train.natural_ids.tolist() == [by_label[y] for y in split.train.labels.tolist()]


def test_a_device_may_lack_the_highest_class(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=X[Y < 2], y=Y[Y < 2], classes=7)
    assert load_folder(config(tmp_path)).classes == 7


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "exploded",)  # type: ignore[return-value]

    np.savez(tmp_path / "set.npz", x=np.array([Bomb()] * 4), y=np.arange(4))
    with pytest.raises(DataError, match="x holds Python objects, which are never loaded"):
        load_folder(config(tmp_path))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": X, "labels": Y}, "neither x_train and y_train nor x and y"),
        ({"x_train": X}, "has x_train but no y_train"),
        ({"x": X, "y": Y[:9]}, "20 records but 9 labels"),
        ({"x": X, "y": Y / 2}, "y is float64 .*whole numbers"),
        ({"x": X, "y": np.eye(4)[Y]}, "y is float64"),
        ({"x": X, "y": Y - 1}, "label -1 is out of range"),
        ({"x": X, "y": Y, "classes": 3}, "label 3 is out of range"),
        ({"x": X, "y": Y, "classes": [4, 4]}, "classes must be one whole number"),
        ({"x": X.astype("U"), "y": Y}, "x is <U3"),
        ({"x": X.astype(complex), "y": Y}, "x is complex128"),
        ({"x": np.full((20, 2), 1e300), "y": Y}, "NaN or infinite"),
        ({"x": np.full((20, 2), np.nan), "y": Y}, "NaN or infinite"),
        ({"x": X[:0], "y": Y[:0]}, "no values"),
        ({"x_train": X, "y_train": Y, "x_test": X[:, :2], "y_test": Y}, "take both from the same"),
        ({"x": Y, "y": Y}, "x is int64"),
    ],
)
def test_faults_say_what_is_wrong(tmp_path: Path, arrays: dict, message: str) -> None:
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        load_split(config(tmp_path), 0)
    assert "\n" not in str(caught.value)


def test_missing_or_unfit_client_ids(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=X, y=Y, short=Y[:5])
    with pytest.raises(DataError, match=r"no array client_id, which data\.partition=natural needs"):
        load_split(config(tmp_path, partition="natural"), 0)
    with pytest.raises(DataError, match="client ids are int64"):
        load_split(config(tmp_path, partition="natural", natural_id="short"), 0)


def test_missing_places(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        load_folder(config(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"must hold one \.npz archive.*it holds: none"):
        load_folder(config(tmp_path))
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", x=X, y=Y)
    with pytest.raises(DataError, match=r"it holds: a\.npz, b\.npz"):
        load_folder(config(tmp_path))


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "set.npy", X)
    with pytest.raises(DataError, match=r"damaged or not an \.npz archive"):
        load_folder(config(tmp_path / "set.npy"))


def test_a_header_that_lies_costs_no_memory(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
    )
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(800))
        archive.writestr("y.npy", header.getvalue() + bytes(800))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="x promises 8000000000"):
            load_folder(config(tmp_path))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_damage_of_any_kind_is_a_one_line_data_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("npz") / "set.npz"
    save = data.draw(st.sampled_from([np.savez, np.savez_compressed]))
    save(path, x=X, y=Y)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        train = read_npz(str(path)).train
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert len(train) > 0


def test_sixteen_bits_are_scaled_by_their_dtype_or_the_declared_range(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=np.full((20, 4, 4), 4095, np.uint16), y=Y)
    by_dtype = load_split(config(tmp_path), 0)
    assert np.allclose(by_dtype.train.features, 4095 / 65535)
    assert "0,4095 for 12 bits" in by_dtype.warnings[0]
    declared = load_split(config(tmp_path, value_range="0,4095"), 0)
    assert (declared.train.features == 1).all() and not declared.warnings
    assert declared.done == ("uint16 scaled by 4095, the declared range",)
    with pytest.raises(DataError, match=r"set\.npz: record 0 holds 4095, outside of"):
        load_split(config(tmp_path, value_range="0,1023"), 0)


def test_an_archive_of_medmnist_is_read(tmp_path: Path) -> None:
    images = np.repeat(X[..., None], 3, axis=3)
    parts = {"train": 20, "val": 8, "test": 4}
    arrays = {f"{part}_images": images[:number] for part, number in parts.items()}
    labels = {f"{part}_labels": Y[:number, None] for part, number in parts.items()}
    np.savez(tmp_path / "bloodmnist.npz", **arrays, **labels)
    split = load_split(config(tmp_path), 0)
    assert (len(split.train), len(split.test)) == (20, 4)
    assert split.train.input_shape == (3, 4, 4)
    assert split.warnings == ("val_images of bloodmnist.npz is left out: there is a test set",)
    without = {name: a for name, a in (arrays | labels).items() if not name.startswith("test")}
    np.savez(tmp_path / "bloodmnist.npz", **without)
    assert len(load_split(config(tmp_path), 0).test) == 8


def test_labels_far_apart_are_mapped_by_a_stated_table(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=X, y=np.where(Y > 1, 41401, 25000))
    with pytest.raises(DataError, match=r"set\.npz: labels go up to 41401 but only 2 different"):
        load_split(config(tmp_path), 0)
    split = load_split(config(tmp_path, classes="25000,41401"), 0)
    assert split.train.classes == 2 and set(split.train.labels) == {0, 1}
    assert split.done[-1] == "classes 25000 = 0, 41401 = 1: as data.classes states"


def test_a_part_that_lacks_the_highest_class_can_be_told_of_it(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=X, y=Y % 2)
    assert load_folder(config(tmp_path)).classes == 2
    assert load_folder(config(tmp_path, classes="4")).classes == 4
