"""Pictures in folders."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from calyx.shared.config.schema import DataConfig
from calyx.shared.data import load_split
from calyx.shared.data.sources.images import read_images
from calyx.shared.errors import DataError

Image = pytest.importorskip("PIL.Image")


def png(array: np.ndarray, kind: str = "PNG", **more: object) -> bytes:
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, kind, **more)
    return buffer.getvalue()


GREY = 12 * np.arange(20, dtype=np.uint8).reshape(5, 4)
COLOUR = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)


def config(place: Path, **more: object) -> DataConfig:
    return DataConfig.model_validate({"source": "images", "directory": str(place), **more})


@pytest.fixture
def folder(write: Callable[..., Path], tmp_path: Path) -> Path:
    for number in range(4):
        write(f"set/{'cat' if number % 2 else 'dog'}/{number}.png", png(GREY + number))
    write("set/cat/Thumbs.db", b"no picture")
    return tmp_path / "set"


def test_a_folder_is_a_class(folder: Path) -> None:
    found = read_images(config(folder))
    assert found.features.shape == (4, 1, 5, 4)
    assert np.allclose(found.features[0, 0] * 255, GREY + 1)
    assert found.class_names == ("cat", "dog") and found.labels.tolist() == [0, 0, 1, 1]
    assert found.done[0] == "uint8 scaled by 255, what its dtype can hold"


def test_colour_sixteen_bits_and_twelve_bits(write, tmp_path: Path) -> None:
    for number in range(4):
        write(f"rgb/{number % 2}/{number}.png", png(COLOUR))
        write(f"deep/{number % 2}/{number}.png", png(np.full((5, 4), 4095, np.uint16)))
    assert np.allclose(
        read_images(config(tmp_path / "rgb")).features[0] * 255, np.moveaxis(COLOUR, 2, 0)
    )
    grey = read_images(config(tmp_path / "rgb", colour="grey"))
    assert grey.features.shape == (4, 1, 5, 4) and grey.done[0].startswith("converted to grey (4")
    twelve = read_images(config(tmp_path / "deep", value_range="0,4095"))
    assert (twelve.features == 1).all()
    assert twelve.done[0] == "uint16 scaled by 4095, the declared range"
    assert "0,4095 for 12 bits" in read_images(config(tmp_path / "deep")).warnings[0]


def test_a_picture_is_turned_upright(write, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(4):
        write(f"set/{number % 2}/{number}.png", png(GREY, exif=exif))
    found = read_images(config(tmp_path / "set"))
    assert found.features.shape == (4, 1, 4, 5)
    assert np.allclose(found.features[0, 0] * 255, np.rot90(GREY, -1))
    assert found.done[0].startswith("turned upright")


def test_a_set_may_have_folders_for_training_and_testing(folder: Path, write) -> None:
    for part, number in (("train", 6), ("test", 4), ("val", 2)):
        for record in range(number):
            write(f"parts/{part}/{record % 2}/{record}.png", png(GREY))
    split = load_split(config(folder.parent / "parts"), 0)
    assert (len(split.train), len(split.test)) == (6, 4)
    assert split.warnings == ("2 files of the validation set are left out: there is a test set",)
    write("parts/other/0/1.png", png(GREY))
    with pytest.raises(DataError, match=r"other/0/1\.png is in neither of the folders train"):
        load_split(config(folder.parent / "parts"), 0)


def header(width: int, height: int) -> bytes:
    """A PNG whose head claims a size, with nothing behind it."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"9\.png is empty"),
        (png(GREY)[:-30], r"9\.png is damaged or not a PNG"),
        (b"GIF89a not a picture", r"9\.png is damaged or not a PNG or JPEG picture \(its bytes"),
        (png(GREY, "BMP"), r"9\.png is damaged or not a PNG or JPEG"),
        (png(GREY[:3]), r"9\.png has 3x4 pixels but .*1\.png 5x4\nhint: set data\.image_size=3x4"),
        (png(COLOUR), r"9\.png is in colour but .*1\.png grey\nhint: set data\.colour=grey"),
        (png(GREY.astype(np.uint16)), r"9\.png has 16 bits a pixel but .*1\.png 8"),
        (header(20_000, 9_000), r"9\.png has (20000x9000|more than the)"),
        (header(9_000, 8_000), r"9\.png has 9000x8000 pixels, more than"),
        (header(60_000, 60_000), r"9\.png has more than the 67,108,864 pixels"),
    ],
)
def test_pictures_that_do_not_fit_are_refused_by_name(
    folder: Path, write, content, message
) -> None:
    write("set/dog/9.png", content)
    with pytest.raises(DataError, match=message):
        read_images(config(folder))


def test_sizes_are_made_equal_only_when_asked_to(folder: Path, write) -> None:
    write("set/dog/9.jpg", png(GREY[:3], "JPEG"))
    found = read_images(config(folder, image_size="8x6"))
    assert found.features.shape == (5, 1, 8, 6)
    assert found.done[0] == "scaled to 8x6 pixels (5 pictures)"


def test_a_picture_in_no_folder_is_refused(write) -> None:
    folder = write("flat/alone.png", png(GREY)).parent
    with pytest.raises(DataError, match=r"alone\.png is in no folder that names its class"):
        read_images(config(folder))
