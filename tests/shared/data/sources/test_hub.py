"""The path of the Hugging Face libraries, always offline."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from calyx.shared.config.schema import DataConfig
from calyx.shared.data import load_folder, load_split, partition
from calyx.shared.data.sources.hub import offline
from calyx.shared.errors import DataError

pytestmark = pytest.mark.usefixtures("no_network")


def config(folder: Path | str, **more: object) -> DataConfig:
    return DataConfig.model_validate({"source": "hub", "hub_name": str(folder), **more})


def table(number: int, **more: object) -> pa.Table:
    rng = np.random.default_rng(number)
    columns = {
        "x": rng.random((number, 5, 4)).tolist(),
        "label": (np.arange(number) % 3).tolist(),
        "who": [f"device {i % 4}" for i in range(number)],
    }
    return pa.table({**columns, **more})


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    pq.write_table(table(40), tmp_path / "train.parquet")
    pq.write_table(table(10), tmp_path / "test.parquet")
    return tmp_path


def images(folder: Path, mode: str, size: tuple[int, int] = (4, 5)) -> None:
    for part, number in (("train", 6), ("test", 2)):
        for shade, name in ((0, "cat"), (255, "dog")):
            place = folder / part / name
            place.mkdir(parents=True, exist_ok=True)
            for i in range(number):
                Image.new("L", size, shade).convert(mode).save(place / f"{i}.png")


def test_parquet_folder_with_its_own_test_set(parquet: Path) -> None:
    split = load_split(config(parquet, hub_features="x"), 0)
    assert split.train.features.shape == (40, 1, 5, 4)
    assert split.test.features.shape == (10, 1, 5, 4)
    assert np.allclose(split.train.features[:, 0], table(40)["x"].to_pylist())
    assert split.train.labels.tolist() == [i % 3 for i in range(40)]
    assert split.train.classes == 3


def test_without_a_test_set_a_share_is_held_out(parquet: Path) -> None:
    (parquet / "test.parquet").unlink()
    split = load_split(config(parquet, hub_features="x", test_fraction=0.25), 0)
    assert (len(split.train), len(split.test)) == (30, 10)


def test_a_device_reads_its_own_folder(parquet: Path) -> None:
    settings = config("someone/somewhere", directory=str(parquet), hub_features="x")
    assert len(load_folder(settings)) == 40


def test_natural_partition_by_a_column(parquet: Path) -> None:
    settings = config(parquet, hub_features="x", partition="natural", natural_id="who")
    parts = partition(load_split(settings, 0).train, settings, 3, 0)
    assert [part.tolist() for part in parts] == [list(range(i, 40, 4)) for i in range(3)]


def test_bytes_are_scaled_and_single_numbers_are_sequences(tmp_path: Path) -> None:
    pixels = pa.array([[0, 51, 255]] * 6, type=pa.list_(pa.uint8()))
    pq.write_table(table(6, x=pixels), tmp_path / "train.parquet")
    data = load_folder(config(tmp_path, hub_features="x", view="sequence"))
    assert data.features.shape == (6, 3, 1)
    assert np.allclose(data.features[0, :, 0], [0, 0.2, 1])


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("1", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)]
)
def test_image_folders(tmp_path: Path, mode: str, channels: int) -> None:
    images(tmp_path, mode)
    split = load_split(config(tmp_path), 0)
    assert split.train.features.shape == (12, channels, 5, 4)
    assert split.test.features.shape == (4, channels, 5, 4)
    shade = split.train.features.mean(axis=(1, 2, 3))
    assert np.array_equal(shade, split.train.labels.astype(np.float32))


def test_sixteen_bit_images_are_scaled_by_their_own_range(tmp_path: Path) -> None:
    for label, shade in enumerate((0, 65535)):
        place = tmp_path / "train" / str(label)
        place.mkdir(parents=True)
        Image.fromarray(np.full((5, 4), shade, np.uint16)).save(place / "0.png")
    data = load_folder(config(tmp_path))
    assert data.features.shape == (2, 1, 5, 4)
    assert data.features.max(axis=(1, 2, 3)).tolist() == [0, 1]


def test_images_of_different_sizes_are_refused(tmp_path: Path) -> None:
    images(tmp_path, "L")
    Image.new("L", (9, 9)).save(tmp_path / "train" / "dog" / "odd.png")
    with pytest.raises(DataError, match="give all images the same size"):
        load_split(config(tmp_path), 0)


def test_a_damaged_image_is_refused(tmp_path: Path) -> None:
    images(tmp_path, "L")
    (tmp_path / "train" / "dog" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="cannot be decoded"):
        load_split(config(tmp_path), 0)


def test_a_damaged_parquet_file_is_refused(parquet: Path) -> None:
    (parquet / "train.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match=r"cannot be loaded .*Parquet") as caught:
        load_split(config(parquet, hub_features="x"), 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        (
            {},
            {"hub_features": "pixels"},
            "no column pixels.*x, label, who\nhint: set data.hub_features",
        ),
        ({}, {"hub_label": "y"}, "(?s)no column y.*hint: set data.hub_label"),
        ({}, {"hub_label": "who"}, "column who holds .*whole numbers"),
        ({}, {"hub_features": "who"}, "column who holds .*arrays of numbers"),
        (
            {},
            {"partition": "natural", "natural_id": "no"},
            "(?s)no column no.*hint: set data.natural_id",
        ),
        ({"label": [0, 1, None, 1]}, {}, "none missing"),
        ({"label": [0, 1, -1, 1]}, {}, "label -1 is out of range"),
        ({"x": [[1.0], [1.0, 2.0], [1.0], [1.0]]}, {}, "same shape"),
        ({"x": [[1.0], [None], [1.0], [1.0]]}, {"view": "sequence"}, "NaN or infinite"),
    ],
)
def test_columns_that_do_not_fit(
    tmp_path: Path, columns: dict, settings: dict, message: str
) -> None:
    pq.write_table(table(4, **columns), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=message) as caught:
        load_split(config(tmp_path, **{"hub_features": "x", **settings}), 0)
    assert "\n" not in str(caught.value)


def test_a_set_without_a_training_split_is_refused(parquet: Path) -> None:
    (parquet / "train.parquet").unlink()
    with pytest.raises(DataError, match="no split named train; it has test"):
        load_split(config(parquet, hub_features="x"), 0)


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(DataError, match="neither Parquet files nor images"):
        load_split(config(tmp_path), 0)
    with pytest.raises(DataError, match="no such folder"):
        load_folder(config("a/b", directory=str(tmp_path / "nowhere")))


def test_a_description_in_the_folder_cannot_point_to_the_network(parquet: Path) -> None:
    (parquet / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files: https://127.0.0.1:9/x.parquet\n---\n"
    )
    settings = config(parquet, hub_features="x", allow_download=True)
    assert len(load_split(settings, 0).train) == 40


@pytest.mark.parametrize(
    "name", ["csv", "hf://datasets/a/b", "buckets/a", "https://a.b/c", "../x/y"]
)
def test_what_is_no_name_of_a_set_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="write it OWNER/NAME"):
        load_split(config(name), 0)


def test_nothing_is_downloaded_unless_asked() -> None:
    with pytest.raises(
        DataError, match=r"not in the local cache\nhint: set data\.allow_download=true"
    ):
        load_split(config("nobody/nothing"), 0)


def test_a_cached_set_is_found_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    place = tmp_path / "someone___tiny_set" / "default" / "0.0.0" / "0123456789abcdef"
    place.mkdir(parents=True)
    data = datasets.Dataset(table(9))
    with datasets.arrow_writer.ArrowWriter(
        features=data.features, path=str(place / "tiny_set-train.arrow")
    ) as writer:
        writer.write_table(table(9))
        writer.finalize()
    info = datasets.DatasetInfo(
        features=data.features,
        builder_name="parquet",
        dataset_name="tiny_set",
        config_name="default",
        version="0.0.0",
        splits=datasets.SplitDict.from_split_dict(
            [datasets.SplitInfo("train", num_examples=9)], dataset_name="tiny_set"
        ),
    )
    info.write_to_directory(str(place))
    assert json.loads((place / "dataset_info.json").read_text())["config_name"] == "default"
    assert len(load_folder(config("someone/tiny_set", hub_features="x"))) == 9


def test_offline_is_put_back_also_after_an_error() -> None:
    import datasets
    import huggingface_hub

    before = (datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE)
    with pytest.raises(RuntimeError), offline():
        assert huggingface_hub.constants.is_offline_mode()
        assert datasets.config.HF_HUB_OFFLINE
        raise RuntimeError
    assert before == (datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE)


def test_no_copy_of_local_records_is_left_and_nothing_is_shown(
    parquet: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import datasets

    cache, temporary = tmp_path_factory.mktemp("cache"), tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    load_split(config(parquet, hub_features="x"), 0)
    assert not list(cache.rglob("*"))
    assert not list(temporary.rglob("*"))
    assert capfd.readouterr() == ("", "")
