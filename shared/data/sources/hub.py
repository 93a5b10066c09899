"""Data sets of the Hugging Face Hub, or a local folder of theirs, through Flower Datasets.

The network is used only if the caller allows it; otherwise a set must already be in the local
cache. A local folder of Parquet files or of images (one folder a class) goes the same way, never
needs the network, and leaves no copy of its records in the cache.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calyx.shared.config import data_settings
from calyx.shared.data.dataset import Dataset
from calyx.shared.data.quiet import quiet
from calyx.shared.data.sources.class_labels import numbered_integers
from calyx.shared.data.sources.scaling import Scaled, scaled
from calyx.shared.data.sources.source_records import Reading
from calyx.shared.errors import DataError

if TYPE_CHECKING:
    from calyx.shared.config.schema import DataConfig

_HUB_NAME = re.compile(r"(?!buckets/)[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TEST_SPLITS = ("test", "validation")


def read_hub(config: DataConfig) -> Reading:
    """Read the training split and, where there is one, the test (or else validation) split.

    Args:
        config: ``hub_name``, OWNER/NAME or a local folder (an existing folder wins; so does
            ``directory`` if it is set), the columns ``hub_features`` and ``hub_label``, for the
            natural partition ``natural_id``, and ``allow_download``.

    Returns:
        Images become (n, channels, height, width) in [0, 1] with 1 or 3 channels; other columns
        keep their shape, and are scaled by `calyx.shared.data.sources.scaling`.

    Raises:
        DataError: the set is not there and may not be downloaded, cannot be loaded, or a column
            is missing or does not hold what it must.
    """
    where = config.directory or config.hub_name
    is_local = Path(where).is_dir()
    if config.directory and not is_local:
        raise DataError(
            f"data.directory = {where}: no such folder",
            hint="leave it empty to use the hub",
        )
    if not is_local and not _HUB_NAME.fullmatch(where):
        raise DataError(
            f"data.hub_name = {where}: neither a folder nor the name of a hub data set",
            hint="write it OWNER/NAME, for example ylecun/mnist",
        )
    with quiet():
        if is_local:
            return _read_folder(Path(where), config)
        with nullcontext() if config.allow_download else offline():
            splits = _load(where, where, {}, allow_download=config.allow_download)
            return _convert(splits, where, config)


@contextmanager
def offline() -> Iterator[None]:
    """Make the Hugging Face libraries refuse network connections, and only here.

    The same as their ``HF_HUB_OFFLINE`` variable, which they read once when they are imported.
    """
    import datasets
    import huggingface_hub

    modules: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    before = [module.HF_HUB_OFFLINE for module in modules]
    for module in modules:
        module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value


def _read_folder(folder: Path, config: DataConfig) -> Reading:
    # Building by the kind of file, not by the folder's own description: a README there may name
    # remote files.
    builder = _builder(folder)
    with offline(), tempfile.TemporaryDirectory(prefix="calyx-") as cache:
        options = {"data_dir": str(folder.absolute()), "cache_dir": cache}
        splits = _load(builder, str(folder), options, allow_download=False)
        return _convert(splits, str(folder), config)


def _builder(folder: Path) -> str:
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    suffixes = {path.suffix.lower() for path in folder.rglob("*")}
    if ".parquet" in suffixes:
        return "parquet"
    if suffixes & set(ImageFolder.EXTENSIONS):
        return "imagefolder"
    raise DataError(
        f"{folder} holds neither Parquet files nor images",
        hint=(
            "give a folder with train.parquet and test.parquet, or with images in train/CLASS/ and "
            "test/CLASS/"
        ),
    )


def _load(path: str, shown: str, options: dict[str, str], *, allow_download: bool) -> Any:
    """The splits ``train`` and ``test`` of the set; ``test`` is empty if it has none."""
    from flwr_datasets import FederatedDataset
    from flwr_datasets.partitioner import IidPartitioner

    # The partitioners' own data sets are asked for because `load_split` and `load_partition`
    # report each use to Flower's telemetry service.
    federated = FederatedDataset(
        dataset=path,
        partitioners={"train": IidPartitioner(1), "test": IidPartitioner(1)},
        preprocessor=lambda splits: _train_and_test(splits, shown),
        shuffle=False,
        **options,
    )
    try:
        return federated.partitioners
    except DataError:
        raise
    except ConnectionError as error:
        if allow_download:
            reason, hint = f"cannot be fetched ({_first_line(error)})", "check the network"
        else:
            reason, hint = "is not in the local cache", "set data.allow_download=true to fetch it"
        raise DataError(f"hub data set {shown} {reason}", hint=hint) from error
    except Exception as error:
        raise DataError(
            f"data set {shown} cannot be loaded ({_first_line(error)})",
            hint="check data.hub_name and the files of the set",
        ) from error


def _train_and_test(splits: Any, shown: str) -> Any:
    import datasets

    if "train" not in splits:
        raise DataError(
            f"data set {shown} has no split named train; it has {', '.join(splits)}",
            hint="use a data set that has one",
        )
    name = next((name for name in _TEST_SPLITS if name in splits), None)
    test = splits[name] if name else splits["train"].select([])
    return datasets.DatasetDict({"train": splits["train"], "test": test})


def _convert(splits: Any, shown: str, config: DataConfig) -> Reading:
    import datasets

    train, test = splits["train"].dataset, splits["test"].dataset
    try:
        tables = (train, test) if len(test) else (train,)
        parts = [_features(table, config) for table in tables]
        labels = [_labels(table, config.hub_label) for table in tables]
        label, done = train.features[config.hub_label], ""
        if isinstance(label, datasets.ClassLabel) and not config.classes:
            classes = int(label.num_classes)
        else:
            labels, classes, done = numbered_integers(labels, config.classes)
        ids = _natural_ids(train, config) if config.partition == "natural" else None
        return Reading(
            train=Dataset(parts[0].values, labels[0], classes, ids),
            test=Dataset(parts[1].values, labels[1], classes) if len(parts) > 1 else None,
            done=tuple(filter(None, (parts[0].done, done))),
            warnings=tuple(filter(None, (parts[0].warning,))),
        )
    except DataError as error:
        raise DataError(f"data set {shown}: {error}", hint=error.hint) from None
    except Exception as error:
        raise DataError(
            f"data set {shown} cannot be decoded ({_first_line(error)})",
            hint="repair the records or leave them out",
        ) from error


def _column(table: Any, name: str, key: str) -> NDArray[Any]:
    if name not in table.column_names:
        raise DataError(
            f"there is no column {name}; the columns are {', '.join(table.column_names)}",
            hint=f"set {key}",
        )
    return np.asarray(table.select_columns([name]).with_format("numpy")[:][name])


def _features(table: Any, config: DataConfig) -> Scaled:
    import datasets

    name, declared = config.hub_features, data_settings.value_range(config.value_range)
    if isinstance(table.features.get(name), datasets.Image):
        return scaled(_images(table.select_columns([name]), name), declared, "pixels")
    array = _column(table, name, "data.hub_features")
    if array.dtype.kind not in "fiub" or array.ndim < 2:
        raise DataError(
            f"column {name} holds {array.dtype} {array.shape}, but records must be "
            "images or arrays of numbers that all have the same shape",
            hint="set data.hub_features to another column",
        )
    stored = _element_dtype(table.features[name])
    return scaled(array.astype(stored) if stored in ("uint8", "uint16") else array, declared, name)


def _element_dtype(feature: Any) -> str:
    """Of lists within lists; NumPy sees all whole numbers as int64."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    return str(getattr(feature, "dtype", ""))


def _images(table: Any, name: str) -> NDArray[Any]:
    features: NDArray[Any] | None = None
    for record, row in enumerate(table):
        if row[name] is None:
            raise DataError(f"record {record} has no image in column {name}", hint="leave it out")
        pixels = _pixels(row[name])
        if features is None:
            features = np.empty((len(table), *pixels.shape), pixels.dtype)
        if pixels.shape != features.shape[1:]:
            raise DataError(
                f"image {record} has shape {pixels.shape} but the first {features.shape[1:]}",
                hint="give all images the same size and number of channels",
            )
        if pixels.dtype != features.dtype:
            raise DataError(
                f"image {record} is {pixels.dtype} but the first {features.dtype}",
                hint="give all images the same number of bits",
            )
        features[record] = pixels
    if features is None:
        raise DataError(f"column {name} holds no images", hint="use a data set with records")
    return features


def _pixels(image: Any) -> NDArray[Any]:
    """A Pillow image as uint8 or uint16 (1 or 3, height, width)."""
    if image.mode.startswith("I;16"):
        return np.array(image, dtype=np.uint16)[np.newaxis]
    if image.mode in ("I", "F"):
        raise DataError(
            f"images of mode {image.mode} have no known range",
            hint="store them with 8 or 16 bits",
        )
    grey = image.mode in ("1", "L", "LA")
    pixels = np.array(image.convert("L" if grey else "RGB"))
    return pixels[np.newaxis] if grey else np.moveaxis(pixels, 2, 0)


def _labels(table: Any, name: str) -> NDArray[np.int64]:
    array = _column(table, name, "data.hub_label")
    if array.dtype.kind not in "iub" or array.ndim != 1:
        raise DataError(
            f"column {name} holds {array.dtype} {array.shape}, but labels must be "
            "whole numbers, one for each record and none missing",
            hint="set data.hub_label to another column",
        )
    return array.astype(np.int64)


def _natural_ids(table: Any, config: DataConfig) -> NDArray[Any]:
    ids = _column(table, config.natural_id, "data.natural_id")
    return ids.astype(np.int64) if ids.dtype.kind in "iu" else ids


def _first_line(error: Exception) -> str:
    from datasets.exceptions import DatasetGenerationError

    if isinstance(error, DatasetGenerationError) and isinstance(error.__cause__, Exception):
        return _first_line(error.__cause__)  # the wrapper only says that something was wrong
    return (str(error).strip() or type(error).__name__).splitlines()[0]
