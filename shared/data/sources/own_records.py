"""What a task of the user's own reads, as records.

    def records(place): return features, labels                  arrays or tensors
    def records(place): return features, labels, whose           and a client id for each record
    def records(place): return MyDataset(place)                  a map-style torch data set
    def records(place): return train, test                       either of them, twice

Features are float32 of any shape, or one array a named input where `Task.inputs` says so. Labels
are whole numbers or float32, of the shape that `Task.target` says or simply have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calyx.shared.data.dataset import Dataset
from calyx.shared.data.sources.source_records import Reading
from calyx.shared.errors import CalyxError, DataError
from calyx.shared.target import OwnTarget
from calyx.shared.tasks.task import Task

_HINT = (
    "return features and labels as arrays, a torch Dataset of (features, label), or (train, test) "
    "of either"
)


def read_own(task: Task, place: str) -> Reading:
    """Call the task's function and check what it gives.

    Args:
        task: of the user's own.
        place: ``data.directory``, handed on as it is.

    Raises:
        DataError: the task reads nothing, its function fails, or gives no records.
    """
    if task.records is None:
        raise DataError(
            "data.source = task: the task reads no records",
            hint="give the Task a records function, or name another data.source",
        )
    try:
        found = task.records(place)
        if _is_pair(found):
            train, test = found
            return Reading(_dataset(task, train), _dataset(task, test))
        return Reading(_dataset(task, found))
    except CalyxError:
        raise
    except Exception as error:
        # The user's own code may fail with anything.
        raise DataError(
            f"the task's records cannot be read: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}",
            hint=_HINT,
        ) from error


def _is_pair(found: Any) -> bool:
    """Whether it is (train, test) and not (features, labels)."""
    if not isinstance(found, tuple) or len(found) != 2:
        return False
    return all(isinstance(part, tuple) or _is_torch_dataset(part) for part in found)


def _is_torch_dataset(found: Any) -> bool:
    return (
        hasattr(found, "__getitem__")
        and hasattr(found, "__len__")
        and not isinstance(found, tuple | list | Mapping | np.ndarray)
        and not hasattr(found, "numpy")
    )


def _dataset(task: Task, found: Any) -> Dataset:
    if _is_torch_dataset(found):
        found = _collected(found)
    if not isinstance(found, tuple) or len(found) not in (2, 3):
        raise DataError(f"the task's records are a {type(found).__name__}", hint=_HINT)
    features, labels, ids = (*found, None)[:3]
    made = _label_array(labels)
    target = task.target or OwnTarget(made.shape[1:], made.dtype.name)  # type: ignore[arg-type]
    return Dataset(
        _feature_arrays(features),
        made.astype(target.dtype, copy=False),
        target,
        None if ids is None else _id_array(ids),
        task.inputs,
    )


def _collected(found: Any) -> tuple[Any, Any]:
    """All items of a map-style data set, stacked."""
    items = [found[number] for number in range(len(found))]
    if not items:
        raise DataError("the task's data set is empty", hint="give at least one record")
    features, labels = zip(*items, strict=True)
    if isinstance(features[0], Mapping):
        stacked: Any = {
            name: np.stack([np.asarray(row[name]) for row in features]) for name in features[0]
        }
    else:
        stacked = np.stack([np.asarray(row) for row in features])
    return stacked, np.stack([np.asarray(label) for label in labels])


def _feature_arrays(features: Any) -> NDArray[Any] | dict[str, NDArray[Any]]:
    if isinstance(features, Mapping):
        return {str(name): _feature_array(array) for name, array in features.items()}
    return _feature_array(features)


def _feature_array(values: Any) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind == "f":
        return np.ascontiguousarray(array, dtype=np.float32)
    if array.dtype.kind in "iu":
        return np.ascontiguousarray(array, dtype=np.int64)
    return np.ascontiguousarray(array)


def _label_array(values: Any) -> NDArray[Any]:
    array = np.asarray(values)
    return np.ascontiguousarray(array, dtype=np.float32 if array.dtype.kind == "f" else np.int64)


def _id_array(values: Any) -> NDArray[Any]:
    array = np.asarray(values)
    return array.astype(np.int64) if array.dtype.kind in "iu" else array.astype(np.str_)
