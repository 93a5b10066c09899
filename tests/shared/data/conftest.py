"""Small data sets on disk, and a network that reports any use of it."""

from __future__ import annotations

import gzip
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from calyx.shared.data import Dataset

IdxWriter = Callable[..., Path]


@pytest.fixture(scope="session")
def write_idx() -> IdxWriter:
    """Write an array as an IDX file of unsigned bytes; a name ending in .gz is packed."""

    def write(path: Path, array: np.ndarray, *, magic: int | None = None) -> Path:
        values = np.asarray(array, dtype=np.uint8)
        header = struct.pack(
            f">{values.ndim + 1}I", (0x0800 | values.ndim) if magic is None else magic, *array.shape
        )
        content = header + values.tobytes()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        return path

    return write


@pytest.fixture
def idx_folder(tmp_path: Path, write_idx: IdxWriter) -> Path:
    """A complete IDX set: 30 training and 12 test images of 5x4 pixels, labels 0 to 9."""
    rng = np.random.default_rng(0)
    for part, number in (("train", 30), ("t10k", 12)):
        images = rng.integers(0, 256, (number, 5, 4))
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", np.arange(number) % 10)
    return tmp_path


@pytest.fixture(scope="session")
def fashion_folder() -> Path:
    """The folder of the real Fashion-MNIST files."""
    root = os.environ.get("CALYX_TEST_DATA")
    shared = Path(root) if root else Path(__file__).resolve().parents[4] / "shared" / "data"
    folder = shared / "fashion-mnist"
    if not (folder / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip("Fashion-MNIST is not there: set CALYX_TEST_DATA to the folder with it")
    return folder


@pytest.fixture(scope="session")
def labelled() -> Dataset:
    """600 records of ten unequal classes in random order, ids of 12 clients."""
    rng = np.random.default_rng(1)
    labels = rng.choice(10, size=600, p=np.arange(1, 11) / 55)
    ids = np.array([f"device-{number:02}" for number in rng.integers(0, 12, 600)])
    return Dataset(rng.random((600, 4), dtype=np.float32), labels.astype(np.int64), 10, ids)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Refuse and write down every attempt to resolve a name, connect or send."""
    attempts: list[str] = []

    def refuse(name: str) -> Callable[..., object]:
        def attempt(*arguments: object, **_: object) -> object:
            attempts.append(f"{name}{arguments[-1:]}")
            raise OSError(f"the test allows no {name}")

        return attempt

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse(name))
    monkeypatch.setattr(socket, "getaddrinfo", refuse("getaddrinfo"))
    yield attempts
    assert not attempts
