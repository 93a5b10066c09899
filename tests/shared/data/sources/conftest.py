"""Small files of each source, written as people have them."""

from __future__ import annotations

import io
import os
import struct
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

Writer = Callable[..., Path]


def wav_bytes(samples: np.ndarray, rate: int = 8000, bits: int = 16, channels: int = 1) -> bytes:
    """A WAV file of float samples in [-1, 1]; `bits` 32.5 stands for 32-bit floats."""
    if bits == 8:
        data, kind = np.round(samples * 127 + 128).astype(np.uint8).tobytes(), 1
    elif bits == 24:
        wide = np.round(samples * (2**23 - 1)).astype("<i4").view(np.uint8).reshape(-1, 4)
        data, kind = wide[:, :3].tobytes(), 1
    elif bits < 0:
        data, kind = samples.astype(f"<f{-bits // 8}").tobytes(), 3
    else:
        data, kind = np.round(samples * (2 ** (bits - 1) - 1)).astype(f"<i{bits // 8}").tobytes(), 1
    width = channels * abs(bits) // 8
    head = struct.pack("<HHIIHH", kind, channels, rate, rate * width, width, abs(bits))
    body = (
        b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", len(data)) + data
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tone(hertz: float, seconds: float = 0.3, rate: int = 8000) -> np.ndarray:
    """A sine of half the full scale."""
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Write text or bytes below the test's folder."""

    def do(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return do


@pytest.fixture
def pack(tmp_path: Path) -> Writer:
    """Write a tar archive of named contents; the suffix says how it is compressed."""

    def do(name: str, members: Mapping[str, bytes]) -> Path:
        path = tmp_path / name
        kind = {".xz": "w:xz", ".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2"}.get(path.suffix, "w")
        with tarfile.open(path, kind) as archive:
            for member, content in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return path

    return do


@pytest.fixture(scope="session")
def wav() -> Callable[..., bytes]:
    """The bytes of a WAV file."""
    return wav_bytes


@pytest.fixture(scope="session")
def sine() -> Callable[..., np.ndarray]:
    """Samples of a tone."""
    return tone


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of the real data sets."""
    root = os.environ.get("CALYX_TEST_DATA")
    if not root or not (Path(root) / "rt-polarity").is_dir():
        pytest.skip("the real sets are not there: set CALYX_TEST_DATA to the folder with them")
    return Path(root)
