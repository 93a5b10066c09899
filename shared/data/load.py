"""From a config to records: for a simulation or a server, and for one device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calyx.shared.data.dataset import Dataset, Split
from calyx.shared.data.holdout import hold_out
from calyx.shared.data.view import as_view

if TYPE_CHECKING:
    from calyx.shared.config.schema import DataConfig


def load_split(config: DataConfig, seed: int) -> Split:
    """Load training and test records, in the view that `config` asks for.

    A source without a test set of its own gives ``data.test_fraction`` of its records, drawn
    evenly from all classes.

    Args:
        config: source, view, ``test_fraction`` and ``max_records``.
        seed: decides which records are held out; the same seed gives the same split.

    Returns:
        Image view: features float32 (n, 1, height, width), in [0, 1] where they are images (3
        channels if the source has colour). Sequence view: (n, steps, features).

    Raises:
        DataError: the data set is missing, broken or does not fit the request.
    """
    train, test = _read(config)
    split = hold_out(train, config.test_fraction, seed) if test is None else Split(train, test)
    return Split(
        _first(as_view(split.train, config.view), config), as_view(split.test, config.view)
    )


def load_folder(config: DataConfig) -> Dataset:
    """Load a device's own records, all of them for training.

    From a folder in ``idx`` format only the training files are read, from ``npz`` and ``hub``
    only the training records are used; nothing is held out. ``digits`` gives all its records.

    Args:
        config: source, view and ``max_records``; ``directory`` is the device's folder.

    Returns:
        As `load_split`.

    Raises:
        DataError: the data set is missing, broken or does not fit the request.
    """
    return _first(as_view(_read_train(config), config.view), config)


def _read(config: DataConfig) -> tuple[Dataset, Dataset | None]:
    if config.source == "idx":
        from calyx.shared.data.sources.idx import read_idx

        return read_idx(config.directory, "train"), read_idx(config.directory, "t10k")
    if config.source == "npz":
        from calyx.shared.data.sources.npz import read_npz

        return read_npz(config.directory, _natural_id(config))
    if config.source == "hub":
        from calyx.shared.data.sources.hub import read_hub

        return read_hub(config)
    from calyx.shared.data.sources.digits import read_digits

    return read_digits(), None


def _read_train(config: DataConfig) -> Dataset:
    if config.source == "idx":
        from calyx.shared.data.sources.idx import read_idx

        return read_idx(config.directory, "train")
    if config.source == "npz":
        from calyx.shared.data.sources.npz import read_npz

        # A device is one client: whose records they are is no question.
        return read_npz(config.directory)[0]
    return _read(config.model_copy(update={"partition": "iid"}))[0]


def _natural_id(config: DataConfig) -> str | None:
    return config.natural_id if config.partition == "natural" else None


def _first(train: Dataset, config: DataConfig) -> Dataset:
    if not config.max_records or config.max_records >= len(train):
        return train
    return train.subset(np.arange(config.max_records))
