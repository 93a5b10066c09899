"""MNIST-format IDX files: MNIST, Fashion-MNIST, Kuzushiji-MNIST, EMNIST and their like.

A file is a magic number (two zero bytes, the type of a value, the number of dimensions), each
dimension as a big-endian 32-bit number, then the values, the last dimension changing fastest.
The header is checked against the file before memory is taken for what it promises.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np
from numpy.typing import NDArray

from calyx.shared.data.dataset import Dataset
from calyx.shared.data.sources.class_labels import numbered_integers
from calyx.shared.data.sources.scaling import scaled
from calyx.shared.errors import DataError

_UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"
# Deflate cannot shrink anything further: at best 258 bytes for 2 bits.
_MAX_GZIP_RATIO = 1032
_CHUNK_BYTES = 1 << 20
# Sets of the MNIST family have ten classes or more; one device may hold records of fewer.
_LEAST_CLASSES = 10


def read_idx(
    directory: str,
    part: Literal["train", "t10k"],
    *,
    classes: str = "",
    value_range: tuple[float, float] | None = None,
) -> Dataset:
    """Read the images and labels of one part of an IDX data set.

    The files are ``PART-images-idx3-ubyte`` and ``PART-labels-idx1-ubyte``, or with a dot before
    ``idx``, each also as ``.gz``. All may have the same words before PART, and ``test`` instead of
    ``t10k``, as EMNIST has: ``emnist-letters-test-images-idx3-ubyte.gz``.

    Args:
        directory: folder with the files.
        part: ``train`` or ``t10k``, as the files are named.
        classes: as ``data.classes``; empty for those of the training labels, ten at least.
        value_range: lowest and highest value there can be; None for 0 to 255.

    Returns:
        Features (n, height, width) in [0, 1]; ten classes, or more if a training label says so.

    Raises:
        DataError: a file is missing, unreadable, truncated, too long or of another format, images
            and labels are not equally many, or a test label has no training class.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise DataError(
            f"data.directory = {directory}: no such folder",
            hint="give the folder with the IDX files (--data-dir DIR)",
        )
    images_path = _find(folder, part, "images", "idx3-ubyte")
    labels_path = _find(folder, part, "labels", "idx1-ubyte")
    labels = read_idx_file(labels_path, dimensions=1)
    images = read_idx_file(images_path, dimensions=3)
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} holds {len(images)} images but {labels_path.name} {len(labels)} "
            "labels: they are of different sets",
            hint="fetch both again",
        )
    features = _scaled(images, images_path, value_range)
    if classes:
        (numbers,), number, _ = numbered_integers([labels.astype(np.int64)], classes)
        return Dataset(features, numbers, number)
    number = _classes(folder, labels, part)
    if labels.max() >= number:
        raise DataError(
            f"{labels_path}: label {labels.max()} is out of range; the training labels are 0 to "
            f"{number - 1}",
            hint="fetch both label files from the same data set",
        )
    return Dataset(features, labels.astype(np.int64), number)


def _scaled(
    images: NDArray[np.uint8], path: Path, value_range: tuple[float, float] | None
) -> NDArray[np.float32]:
    try:
        return scaled(images, value_range, "pixels").values
    except DataError as error:
        raise DataError(f"{path}: {error}", hint=error.hint) from None


def _classes(folder: Path, labels: NDArray[np.uint8], part: str) -> int:
    if part != "train":
        labels = read_idx_file(_find(folder, "train", "labels", "idx1-ubyte"), dimensions=1)
    return max(_LEAST_CLASSES, int(labels.max()) + 1)


def _find(folder: Path, part: str, kind: str, suffix: str) -> Path:
    stem = f"{part}-{kind}"
    for name in (f"{stem}-{suffix}", f"{stem}.{suffix}"):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    prefixed = _prefixed(folder, part, kind, suffix)
    if len(prefixed) == 1:
        return next(iter(prefixed.values()))
    if prefixed:
        raise DataError(
            f"{folder} holds several sets ({', '.join(sorted(prefixed))})",
            hint="keep one in a folder",
        )
    raise DataError(
        f"{folder} holds no {stem}-{suffix} and no {stem}-{suffix}.gz",
        hint="put the MNIST-format files there, or set data.directory to the folder that has them",
    )


def _prefixed(folder: Path, part: str, kind: str, suffix: str) -> dict[str, Path]:
    """Files of this part by the words before it; unpacked ones win."""
    parts = "t10k|test" if part == "t10k" else part
    name = re.compile(rf"(.+)-(?:{parts})-{kind}[-.]{suffix}(\.gz)?")
    files = sorted((path for path in folder.iterdir() if path.is_file()), reverse=True)
    return {found[1]: path for path in files if (found := name.fullmatch(path.name))}


def read_idx_file(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes; a name that ends in ``.gz`` is unpacked.

    Args:
        path: the file.
        dimensions: how many it must have, 3 for images and 1 for labels.

    Returns:
        uint8 array of that many dimensions, none of them empty.

    Raises:
        DataError: see `read_idx`.
    """
    compressed = path.suffix == ".gz"
    try:
        file_bytes = path.stat().st_size
        if compressed:
            # GzipFile is a binary file, though typeshed does not say so.
            with gzip.open(path) as packed:
                return _read(cast(BinaryIO, packed), path, dimensions, file_bytes * _MAX_GZIP_RATIO)
        with path.open("rb") as plain:
            return _read(plain, path, dimensions, file_bytes)
    except EOFError:
        raise DataError(
            f"{path} is truncated: the gzip data end early",
            hint="fetch the file again",
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path} is not intact gzip data ({error})",
            hint="fetch it again",
        ) from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="check the path and who may read it",
        ) from None


def _read(file: BinaryIO, path: Path, dimensions: int, most_bytes: int) -> NDArray[np.uint8]:
    """`most_bytes`: no honest file of this length holds more, header included."""
    shape = _header(file, path, dimensions)
    expected = math.prod(shape)
    header_bytes = 4 + 4 * dimensions
    if header_bytes + expected > most_bytes:
        found = "at most " if path.suffix == ".gz" else ""
        raise DataError(
            f"{path} is truncated: its header promises {expected} values of one byte; the file "
            f"holds {found}{most_bytes - header_bytes}",
            hint="fetch it again",
        )
    values = bytearray()
    # In pieces, so that memory follows what is really there.
    while piece := file.read(min(_CHUNK_BYTES, expected - len(values))):
        values += piece
    if len(values) < expected:
        raise DataError(
            f"{path} is truncated: its header promises {expected} values of one byte; the file "
            f"holds {len(values)}",
            hint="fetch it again",
        )
    if file.read(1):
        raise DataError(
            f"{path} goes on after the {expected} values its header promises",
            hint="fetch it again",
        )
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)


def _header(file: BinaryIO, path: Path, dimensions: int) -> tuple[int, ...]:
    magic = file.read(4)
    if magic[:2] == _GZIP_MAGIC:
        raise DataError(f"{path} is gzip data", hint=f"rename it to {path.name}.gz or unpack it")
    if len(magic) < 4:
        raise DataError(
            f"{path} is truncated: it has {len(magic)} bytes, not even a magic number",
            hint="fetch it again",
        )
    expected = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    if magic != expected:
        raise DataError(
            f"{path} has the wrong magic number {int.from_bytes(magic, 'big')}: expected "
            f"{int.from_bytes(expected, 'big')} (unsigned bytes, dimensions: {dimensions})",
            hint="check that it is the file its name says",
        )
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise DataError(f"{path} is truncated within its header", hint="fetch it again")
    shape: tuple[int, ...] = struct.unpack(f">{dimensions}I", sizes)
    if 0 in shape:
        raise DataError(
            f"{path} holds no records (dimensions {shape})",
            hint="give at least one record",
        )
    return shape
