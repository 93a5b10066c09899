"""NumPy archives: a data set of one's own in one or two ``.npz`` files.

=====================  ===================================================================
array                  meaning
=====================  ===================================================================
``x_train``, ``x``     training records, (n, ...); unsigned bytes are scaled to [0, 1]
``y_train``, ``y``     their labels, integers (n,)
``x_test``, ``y_test`` test records, if the set has its own
``classes``            optional: number of classes, where a device may lack the highest
``data.natural_id``    only for the natural partition: whose training record it is, (n,)
=====================  ===================================================================

``data.directory`` is an archive, a folder with one, or a folder with ``train.npz`` and maybe
``test.npz`` (there ``x`` and ``y`` mean that part). Pickled objects are never loaded.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calyx.shared.data.dataset import Dataset
from calyx.shared.errors import DataError

_READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(directory: str, natural_id: str | None = None) -> tuple[Dataset, Dataset | None]:
    """Read training and, where there are any, test records.

    Args:
        directory: an archive or a folder, see the module docstring.
        natural_id: name of the array with client ids, None to read none.

    Returns:
        Training records and test records or None, features in the shape they are stored in.

    Raises:
        DataError: no archive, a missing or damaged array, or arrays that do not fit together.
    """
    train_path, test_path = _archives(directory)
    train = _read_part(train_path, ("x_train", "x"), ("y_train", "y"), natural_id)
    if train is None:
        raise DataError(
            f"{train_path} has neither x_train and y_train nor x and y: "
            "save the records and labels under these names"
        )
    if test_path is not None:
        test = _read_part(test_path, ("x_test", "x"), ("y_test", "y"))
        if test is None:
            raise DataError(
                f"{test_path} has neither x_test and y_test nor x and y: "
                "save the records and labels under these names"
            )
    else:
        test = _read_part(train_path, ("x_test",), ("y_test",))
    return _with_classes(train_path, train, test)


_Part = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[Any] | None]


def _with_classes(path: Path, train: _Part, test: _Part | None) -> tuple[Dataset, Dataset | None]:
    stored = _read_array(path, "classes")
    if stored is None:
        highest = max(int(part[1].max(initial=0)) for part in (train, test) if part is not None)
        classes = highest + 1
    elif stored.shape == () and stored.dtype.kind in "iu":
        classes = int(stored)
    else:
        raise DataError(f"{path}: classes must be one whole number, it is {_described(stored)}")
    try:
        return (
            Dataset(train[0], train[1], classes, train[2]),
            None if test is None else Dataset(test[0], test[1], classes),
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _archives(directory: str) -> tuple[Path, Path | None]:
    path = Path(directory)
    if path.is_file():
        return path, None
    if not path.is_dir():
        raise DataError(
            f"data.directory = {directory}: no such file or folder; "
            "give an .npz archive or the folder with it (--data-dir DIR)"
        )
    found = {entry.name: entry for entry in sorted(path.glob("*.npz"))}
    if "train.npz" in found:
        return found["train.npz"], found.get("test.npz")
    if len(found) != 1:
        listed = ", ".join(found) or "none"
        raise DataError(
            f"{directory} must hold one .npz archive, or train.npz and test.npz; found: {listed}; "
            "set data.directory to the archive itself"
        )
    return next(iter(found.values())), None


def _read_part(
    path: Path, x_names: tuple[str, ...], y_names: tuple[str, ...], natural_id: str | None = None
) -> _Part | None:
    for x_name, y_name in zip(x_names, y_names, strict=True):
        x, y = _read_array(path, x_name), _read_array(path, y_name)
        if x is None and y is None:
            continue
        if x is None or y is None:
            missing, there = (x_name, y_name) if x is None else (y_name, x_name)
            raise DataError(f"{path} has {there} but no {missing}: save both")
        ids = None
        if natural_id is not None and (ids := _read_array(path, natural_id)) is None:
            raise DataError(
                f"{path} has no array {natural_id}, which data.partition=natural needs: save one "
                "id a record there, or set data.natural_id to the array that holds them"
            )
        return _features(path, x_name, x), _labels(path, y_name, y), _ids(ids)
    return None


def _features(path: Path, name: str, array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype.kind not in "fiub" or array.ndim < 2:
        raise DataError(
            f"{path}: {name} is {_described(array)}; records must be numbers (records, ...)"
        )
    with np.errstate(over="ignore"):  # what overflows becomes infinite and is refused later
        features = array.astype(np.float32)
    if array.dtype == np.uint8:
        features /= 255
    return features


def _labels(path: Path, name: str, array: NDArray[Any]) -> NDArray[np.int64]:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind not in "iub" or array.ndim != 1:
        raise DataError(
            f"{path}: {name} is {_described(array)}; labels must be whole numbers (records,)"
        )
    return array.astype(np.int64)


def _ids(array: NDArray[Any] | None) -> NDArray[Any] | None:
    """Whole numbers as int64; what is neither that nor text is refused by `Dataset`."""
    return array.astype(np.int64) if array is not None and array.dtype.kind in "iu" else array


def _read_array(path: Path, name: str) -> NDArray[Any] | None:
    """One array of the archive, None if it has none of that name."""
    try:
        with zipfile.ZipFile(path) as archive:
            member = _member(archive.namelist(), name)
            if member is None:
                return None
            _check_header(archive, member, path, name)
            with archive.open(member) as file:
                return np.lib.format.read_array(file, allow_pickle=False)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{path} is damaged or no .npz archive ({name}: {reason}): save it again with np.savez"
        ) from None
    except MemoryError:
        raise DataError(f"{path}: {name} does not fit into memory: use fewer records") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def arrays_of(content: bytes, most_bytes: int) -> dict[str, NDArray[Any]]:
    """All arrays of an archive that somebody else may have made, by name.

    Raises:
        DataError: it is damaged, holds Python objects, or would need more memory than that.
    """
    where = Path("the archive")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > most_bytes:
                raise DataError(f"the archive unfolds to more than {most_bytes:,} bytes")
            found = {}
            for member in archive.namelist():
                name = member.removesuffix(".npy")
                _check_header(archive, member, where, name)
                with archive.open(member) as file:
                    found[name] = np.lib.format.read_array(file, allow_pickle=False)
            return found
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"the archive is damaged or none ({reason})") from None


def _member(names: Iterable[str], name: str) -> str | None:
    return next((n for n in names if n in (f"{name}.npy", name)), None)


def _check_header(archive: zipfile.ZipFile, member: str, path: Path, name: str) -> None:
    """Compare the promised size with the stored one before memory is taken for it."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in _READ_HEADER:
            raise DataError(f"{path}: {name} has no plain number or text dtype; save it as one")
        shape, _, dtype = _READ_HEADER[version](file)
        header_bytes = file.tell()
    if dtype.hasobject:
        raise DataError(
            f"{path}: {name} holds Python objects, which are never loaded; "
            "save it as plain numbers or text"
        )
    promised = header_bytes + math.prod(shape) * dtype.itemsize
    stored = archive.getinfo(member).file_size
    if promised != stored:
        raise DataError(
            f"{path}: {name} promises {promised} bytes but has {stored}: save the archive again"
        )


def _described(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"
