from __future__ import annotations

import gzip
import shutil
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calyx.shared.config.schema import DataConfig
from calyx.shared.data import load_folder, load_split
from calyx.shared.data.sources.idx import read_idx, read_idx_file
from calyx.shared.errors import DataError

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@settings(deadline=None, max_examples=60)
@given(
    array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, max_side=9)),
    packed=st.booleans(),
)
def test_reads_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, write_idx, array: np.ndarray, packed: bool
) -> None:
    path = tmp_path_factory.mktemp("idx") / ("file.gz" if packed else "file")
    write_idx(path, array)
    read = read_idx_file(path, dimensions=array.ndim)
    assert read.dtype == np.uint8
    assert np.array_equal(read, array)


@settings(deadline=None, max_examples=150)
@given(data=st.data(), packed=st.booleans())
def test_damage_of_any_kind_is_a_one_line_data_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, write_idx, data: st.DataObject, packed: bool
) -> None:
    path = tmp_path_factory.mktemp("idx") / ("file.gz" if packed else "file")
    content = bytearray(write_idx(path, np.arange(60).reshape(3, 5, 4)).read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[position:]
    else:
        content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        array = read_idx_file(path, dimensions=3)
    except DataError as error:
        assert "\n" not in str(error)
        assert str(path) in str(error)
    else:
        assert array.size == 60


@pytest.mark.parametrize(
    "style", ["-idx{}-ubyte", "-idx{}-ubyte.gz", ".idx{}-ubyte", ".idx{}-ubyte.gz"]
)
def test_all_usual_file_names_are_found(tmp_path: Path, write_idx, style: str) -> None:
    write_idx(tmp_path / ("train-images" + style.format(3)), np.full((4, 2, 2), 51))
    write_idx(tmp_path / ("train-labels" + style.format(1)), np.arange(4))
    data = read_idx(str(tmp_path), "train")
    assert data.features.dtype == np.float32
    assert np.allclose(data.features, 0.2)
    assert data.labels.tolist() == [0, 1, 2, 3]


def test_split_has_images_in_0_to_1_and_rows_as_steps(idx_folder: Path) -> None:
    config = DataConfig(source="idx", directory=str(idx_folder))
    split = load_split(config, 0)
    assert split.train.features.shape == (30, 1, 5, 4)
    assert split.test.features.shape == (12, 1, 5, 4)
    assert 0 <= split.train.features.min() < split.train.features.max() <= 1
    rows = load_split(config.model_copy(update={"view": "sequence"}), 0).train
    assert rows.features.shape == (30, 5, 4)
    assert np.array_equal(rows.features, split.train.features[:, 0])


def test_a_device_needs_no_test_files_and_may_lack_classes(tmp_path: Path, write_idx) -> None:
    write_idx(tmp_path / IMAGES, np.zeros((4, 5, 4)))
    write_idx(tmp_path / LABELS, np.array([0, 1, 1, 0]))
    data = load_folder(DataConfig(source="idx", directory=str(tmp_path)))
    assert len(data) == 4
    assert data.classes == 10


def test_more_classes_than_ten_come_from_the_training_labels(idx_folder: Path, write_idx) -> None:
    write_idx(idx_folder / LABELS, np.arange(30))
    split = load_split(DataConfig(source="idx", directory=str(idx_folder)), 0)
    assert (split.train.classes, split.test.classes) == (30, 30)


def test_max_records_draws_training_records_by_the_seed(idx_folder: Path) -> None:
    config = DataConfig(source="idx", directory=str(idx_folder))
    every = load_split(config, 0)
    few = config.model_copy(update={"max_records": 7})
    drawn = [load_split(few, seed).train for seed in (0, 0, 1)]
    rows = [record.tobytes() for record in every.train.features]
    places = [[rows.index(record.tobytes()) for record in part.features] for part in drawn]
    assert places[0] == places[1] != places[2]
    assert places[0] == sorted(set(places[0])) != list(range(7))
    assert len(load_split(few, 0).test) == len(every.test)
    assert len(load_folder(few)) == 7


def break_file(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)


def image_header(*shape: int, magic: int = 2051) -> bytes:
    return struct.pack(f">{len(shape) + 1}I", magic, *shape)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (IMAGES, b"", "has 0 bytes"),
        (IMAGES, image_header(30, 5), "truncated within its header"),
        (IMAGES, image_header(30, 5, 4) + bytes(599), "promises 600 values of one byte.*holds 599"),
        (IMAGES, image_header(30, 5, 4) + bytes(601), "goes on after the 600 values"),
        (
            IMAGES,
            image_header(30, 5, 4, magic=2049) + bytes(600),
            "magic number 2049: expected 2051",
        ),
        (IMAGES, image_header(30, 5, 4, magic=0x0D03), "magic number 3331: expected 2051"),
        (IMAGES, image_header(0, 5, 4), "holds no records"),
        (IMAGES, image_header(29, 5, 4) + bytes(580), "29 images but .* 30 labels"),
        (IMAGES, gzip.compress(b"anything", mtime=0), "is gzip data\nhint: rename it"),
        (LABELS, image_header(30, magic=2051) + bytes(30), "magic number 2051: expected 2049"),
        ("t10k-labels-idx1-ubyte", image_header(12, magic=2049) + bytes([200] * 12), "label 200"),
        ("t10k-labels-idx1-ubyte", image_header(3, magic=2049) + bytes(3), "12 images but"),
    ],
)
def test_faults_say_what_is_wrong_and_where(
    idx_folder: Path, name: str, content: bytes, message: str
) -> None:
    break_file(idx_folder, name, content)
    with pytest.raises(DataError, match=message) as caught:
        load_split(DataConfig(source="idx", directory=str(idx_folder)), 0)
    assert str(idx_folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(image_header(3, 5, 4) + bytes(59), mtime=0), "promises 60 .* holds 59"),
        (gzip.compress(image_header(3, 5, 4) + bytes(60), mtime=0)[:-9], "gzip data end early"),
        (gzip.compress(image_header(3, 5, 4) + bytes(60), mtime=0)[:5], "gzip data end early"),
        (image_header(3, 5, 4) + bytes(60), "not intact gzip data"),
        (gzip.compress(bytes(7), mtime=0)[:-8] + bytes(8), "not intact gzip data|wrong magic"),
    ],
)
def test_faults_of_packed_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / f"{IMAGES}.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx_file(path, dimensions=3)


@pytest.mark.parametrize("missing", [IMAGES, LABELS, "t10k-images-idx3-ubyte"])
def test_a_missing_file_is_named(idx_folder: Path, missing: str) -> None:
    (idx_folder / missing).unlink()
    with pytest.raises(DataError, match=f"no {missing} and no {missing}.gz"):
        load_split(DataConfig(source="idx", directory=str(idx_folder)), 0)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        load_split(DataConfig(source="idx", directory=str(tmp_path / "nowhere")), 0)


@pytest.mark.parametrize("name", ["lying", "lying.gz"])
def test_a_header_that_lies_costs_no_memory(tmp_path: Path, name: str) -> None:
    content = image_header(2**31, 2**10, 2**10) + bytes(100_000)
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="is truncated"):
            read_idx_file(path, dimensions=3)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


def test_fashion_mnist_packed_and_unpacked(fashion_folder: Path, tmp_path: Path) -> None:
    for packed in fashion_folder.glob("*.gz"):
        with gzip.open(packed) as source, (tmp_path / packed.stem).open("wb") as target:
            shutil.copyfileobj(source, target)
    splits = [
        load_split(DataConfig(source="idx", directory=str(folder)), 0)
        for folder in (fashion_folder, tmp_path)
    ]
    for split in splits:
        assert split.train.features.shape == (60_000, 1, 28, 28)
        assert split.test.features.shape == (10_000, 1, 28, 28)
        assert np.bincount(split.train.labels).tolist() == [6_000] * 10
        assert np.bincount(split.test.labels).tolist() == [1_000] * 10
        assert (split.train.features.min(), split.train.features.max()) == (0, 1)
    assert splits[0].train.fingerprint == splits[1].train.fingerprint
    assert splits[0].test.fingerprint == splits[1].test.fingerprint


def test_names_of_emnist_are_read(tmp_path: Path, write_idx) -> None:
    for part, number in (("train", 30), ("test", 12)):
        stem = f"emnist-letters-{part}"
        write_idx(tmp_path / f"{stem}-images-idx3-ubyte.gz", np.zeros((number, 5, 4)))
        write_idx(tmp_path / f"{stem}-labels-idx1-ubyte.gz", 1 + np.arange(number) % 26)
    config = DataConfig(source="idx", directory=str(tmp_path))
    split = load_split(config, 0)
    assert (len(split.train), len(split.test), split.train.classes) == (30, 12, 27)
    write_idx(tmp_path / "emnist-digits-train-labels-idx1-ubyte.gz", np.arange(30) % 10)
    with pytest.raises(DataError, match=r"several sets \(emnist-digits, emnist-letters\)"):
        load_split(config, 0)


def test_a_declared_range_scales_the_bytes(tmp_path: Path, write_idx) -> None:
    write_idx(tmp_path / IMAGES, np.full((4, 2, 2), 15))
    write_idx(tmp_path / LABELS, np.arange(4))
    assert (read_idx(str(tmp_path), "train", value_range=(0, 15)).features == 1).all()
