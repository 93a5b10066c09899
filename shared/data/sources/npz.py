"""NumPy archives: a data set of one's own in one or two ``.npz`` files.

=====================  ===================================================================
array                  meaning
=====================  ===================================================================
``x_train``, ``x``     training records, (n, ...); see `calyx.shared.data.sources.scaling`
``y_train``, ``y``     their labels, integers (n,)
``x_test``, ``y_test`` test records, if the set has its own
``train_images``,      the same in archives of MedMNIST, with ``train_labels`` and so on; its
``test_images``        validation set is for testing if there is no test set, else left out
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calyx.shared.data.dataset import Dataset
from calyx.shared.data.sources.class_labels import numbered_integers
from calyx.shared.data.sources.scaling import Scaled, scaled
from calyx.shared.data.sources.source_records import Reading
from calyx.shared.errors import DataError

_READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


_X_TRAIN, _Y_TRAIN = ("x_train", "x", "train_images"), ("y_train", "y", "train_labels")
_X_TEST, _Y_TEST = ("x_test", "test_images", "val_images"), ("y_test", "test_labels", "val_labels")


def read_npz(
    directory: str,
    natural_id: str | None = None,
    *,
    classes: str = "",
    value_range: tuple[float, float] | None = None,
) -> Reading:
    """Read training and, where there are any, test records.

    Args:
        directory: an archive or a folder, see the module docstring.
        natural_id: name of the array with client ids, None to read none.
        classes: as ``data.classes``.
        value_range: lowest and highest value there can be; None to go by the dtype.

    Returns:
        Features in the shape they are stored in.

    Raises:
        DataError: no archive, a missing or damaged array, or arrays that do not fit together.
    """
    train_path, test_path = _archives(directory)
    train = _read_part(train_path, _X_TRAIN, _Y_TRAIN, value_range, natural_id)
    if train is None:
        raise DataError(
            f"{train_path} has neither x_train and y_train nor x and y",
            hint="save the records and labels under these names",
        )
    if test_path is not None:
        test = _read_part(test_path, ("x_test", "x"), ("y_test", "y"), value_range)
        if test is None:
            raise DataError(
                f"{test_path} has neither x_test and y_test nor x and y",
                hint="save the records and labels under these names",
            )
    else:
        test = _read_part(train_path, _X_TEST, _Y_TEST, value_range)
    return _with_classes(train_path, train, test, classes)


@dataclass(frozen=True)
class _Part:
    name: str
    features: Scaled
    labels: NDArray[np.int64]
    ids: NDArray[Any] | None


def _with_classes(path: Path, train: _Part, test: _Part | None, stated: str) -> Reading:
    parts = [part for part in (train, test) if part is not None]
    stored = _read_array(path, "classes")
    if stored is not None and not (stored.shape == () and stored.dtype.kind in "iu"):
        raise DataError(
            f"{path}: classes must be one whole number, not {_described(stored)}",
            hint="save the number of classes there",
        )
    done = ""
    labels = [part.labels for part in parts]
    try:
        if stored is None or stated:
            labels, classes, done = numbered_integers(labels, stated)
        else:
            classes = int(stored)
        made = [
            Dataset(part.features.values, own, classes, part.ids)
            for part, own in zip(parts, labels, strict=True)
        ]
        return Reading(
            train=made[0],
            test=made[1] if test is not None else None,
            done=tuple(dict.fromkeys(filter(None, [*(p.features.done for p in parts), done]))),
            warnings=(
                *(warning for part in parts[:1] if (warning := part.features.warning)),
                *_left_out(path, test),
            ),
        )
    except DataError as error:
        raise DataError(f"{path}: {error}", hint=error.hint) from None


def _left_out(path: Path, test: _Part | None) -> list[str]:
    names = () if test is None or test.name != "test_images" else ("val_images",)
    return [
        f"{name} of {path.name} is left out: there is a test set"
        for name in names
        if _read_array(path, name) is not None
    ]


def _archives(directory: str) -> tuple[Path, Path | None]:
    path = Path(directory)
    if path.is_file():
        return path, None
    if not path.is_dir():
        raise DataError(
            f"data.directory = {directory}: no such file or folder",
            hint="give an .npz archive, or the folder with it (--data-dir DIR)",
        )
    found = {entry.name: entry for entry in sorted(path.glob("*.npz"))}
    if "train.npz" in found:
        return found["train.npz"], found.get("test.npz")
    if len(found) != 1:
        listed = ", ".join(found) or "none"
        raise DataError(
            f"{directory} must hold one .npz archive, or train.npz and test.npz; it holds: "
            f"{listed}",
            hint="set data.directory to the archive itself",
        )
    return next(iter(found.values())), None


def _read_part(
    path: Path,
    x_names: tuple[str, ...],
    y_names: tuple[str, ...],
    value_range: tuple[float, float] | None,
    natural_id: str | None = None,
) -> _Part | None:
    for x_name, y_name in zip(x_names, y_names, strict=True):
        x, y = _read_array(path, x_name), _read_array(path, y_name)
        if x is None and y is None:
            continue
        if x is None or y is None:
            missing, there = (x_name, y_name) if x is None else (y_name, x_name)
            raise DataError(f"{path} has {there} but no {missing}", hint="save both")
        ids = None
        if natural_id is not None and (ids := _read_array(path, natural_id)) is None:
            raise DataError(
                f"{path} has no array {natural_id}, which data.partition=natural needs",
                hint=(
                    "save one id for each record there, or set data.natural_id to the array that "
                    "holds them"
                ),
            )
        labels = _labels(path, y_name, y)
        return _Part(x_name, _features(path, x_name, x, value_range), labels, _ids(ids))
    return None


def _features(
    path: Path, name: str, array: NDArray[Any], value_range: tuple[float, float] | None
) -> Scaled:
    if array.dtype.kind not in "fiub" or array.ndim < 2:
        raise DataError(
            f"{path}: {name} is {_described(array)}, but records must be numbers (records, ...)",
            hint="convert and reshape them",
        )
    try:
        return scaled(array, value_range, name)
    except DataError as error:
        raise DataError(f"{path}: {error}", hint=error.hint) from None


def _labels(path: Path, name: str, array: NDArray[Any]) -> NDArray[np.int64]:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind not in "iub" or array.ndim != 1:
        raise DataError(
            f"{path}: {name} is {_described(array)}, but labels must be whole numbers (records,)",
            hint="convert and reshape them",
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
            f"{path} is damaged or not an .npz archive ({name}: {reason})",
            hint="save it again with np.savez",
        ) from None
    except MemoryError:
        raise DataError(
            f"{path}: {name} does not fit into memory",
            hint="use fewer records",
        ) from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="check the path and who may read it",
        ) from None


def array_names(directory: str) -> list[str]:
    """Names of the arrays of the archive with training records.

    Raises:
        DataError: there is none, or it is damaged.
    """
    path, _ = _archives(directory)
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f"{path} is damaged or not an .npz archive ({error})",
            hint="save it again with np.savez",
        ) from None


def arrays_of(content: bytes, most_bytes: int) -> dict[str, NDArray[Any]]:
    """All arrays of an archive that someone else may have made, by name.

    Raises:
        DataError: it is damaged, holds Python objects, or would need more memory than that.
    """
    where = Path("the archive")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > most_bytes:
                raise DataError(
                    f"the archive unpacks to more than {most_bytes:,} bytes",
                    hint="use fewer records",
                )
            found = {}
            for member in archive.namelist():
                name = member.removesuffix(".npy")
                _check_header(archive, member, where, name)
                with archive.open(member) as file:
                    found[name] = np.lib.format.read_array(file, allow_pickle=False)
            return found
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"the archive is damaged or not in .npz format ({reason})",
            hint="save it again with np.savez",
        ) from None


def _member(names: Iterable[str], name: str) -> str | None:
    return next((n for n in names if n in (f"{name}.npy", name)), None)


def _check_header(archive: zipfile.ZipFile, member: str, path: Path, name: str) -> None:
    """Compare the promised size with the stored one before memory is taken for it."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in _READ_HEADER:
            raise DataError(
                f"{path}: {name} is not of a plain number or text type",
                hint="save it as one",
            )
        shape, _, dtype = _READ_HEADER[version](file)
        header_bytes = file.tell()
    if dtype.hasobject:
        raise DataError(
            f"{path}: {name} holds Python objects, which are never loaded",
            hint="save it as plain numbers or text",
        )
    promised = header_bytes + math.prod(shape) * dtype.itemsize
    stored = archive.getinfo(member).file_size
    if promised != stored:
        raise DataError(
            f"{path}: {name} promises {promised} bytes but has {stored}",
            hint="save the archive again",
        )


def _described(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"
