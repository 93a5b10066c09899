"""The device's own records: a folder, or what its owner's own function returns.

Both are named on the device. A server only says how a record is read (image or sequence).
"""

from __future__ import annotations

import importlib
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np

from calyx.shared.config.schema import DataConfig, View
from calyx.shared.data import Dataset, load_folder
from calyx.shared.data.view import as_view
from calyx.shared.errors import DataError


def load_own(source: str, place: str, view: View) -> Dataset:
    """Load all records of this device, for training.

    Args:
        source: ``npz``, ``idx`` or ``python``.
        place: folder or archive, or ``module:function``. The function takes nothing and returns
            a `Dataset`, or features (n, ...), labels (n,) and the number of classes.
        view: how the run reads a record.

    Raises:
        DataError: there are no records, or they do not fit.
    """
    stamp = 0.0 if source == "python" else _stamp(Path(place))
    return _loaded(source, place, view, stamp)


def _stamp(place: Path) -> float:
    """Changes when the records do, so that they are read again."""
    files = [place, *place.glob("*")] if place.is_dir() else [place]
    return max((file.stat().st_mtime for file in files if file.exists()), default=0.0)


@lru_cache(maxsize=2)
def _loaded(source: str, place: str, view: View, stamp: float) -> Dataset:
    if source == "python":
        return as_view(_from_function(place), view)
    config = DataConfig.model_validate({"source": source, "view": view, "directory": place})
    return load_folder(config)


def _from_function(place: str) -> Dataset:
    module, _, function = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)()
    except DataError:
        raise
    except Exception as error:  # the owner's own code may fail with anything
        raise DataError(
            f"data.place = {place}: {type(error).__name__}: {error}",
            hint=(
                "name a function without arguments in a module that can be imported here "
                "(python_path in device.toml adds a folder)"
            ),
        ) from None
    if isinstance(found, Dataset):
        return found
    try:
        features, labels, classes = found
        return Dataset(
            np.asarray(features, dtype=np.float32), np.asarray(labels, dtype=np.int64), int(classes)
        )
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{place} returned something other than features, labels and the number of classes: "
            f"{error}",
            hint="return these three from the function",
        ) from None


def make_importable(folder: str) -> None:
    """Let modules in `folder` be found, after everything that is installed."""
    if folder and folder not in sys.path:
        sys.path.append(folder)
