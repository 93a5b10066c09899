"""From a config to records: for a simulation or a server, and for one device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calyx.shared.data.dataset import Dataset, Split
from calyx.shared.data.holdout import hold_out, hold_out_together
from calyx.shared.data.view import as_view
from calyx.shared.errors import DataError

if TYPE_CHECKING:
    from calyx.shared.config.schema import DataConfig
    from calyx.shared.data.sources.source_records import Reading

# Keeps this stream of random numbers apart from others drawn from the same seed.
_STREAM = 0x3A7D
# Sources whose labels are words: what number a word has must be the same for everyone.
_NAMED = frozenset({"table", "images", "audio", "sensors"})


def load_split(config: DataConfig, seed: int) -> Split:
    """Load training and test records, in the view that `config` asks for.

    A source without a test set of its own gives ``data.test_fraction`` of its records, drawn
    evenly from all classes; or whole recordings, files or clients, where ``data.hold_out`` says so
    or records are windows of the same recording.

    Args:
        config: source, view, ``test_fraction``, ``hold_out`` and ``max_records``.
        seed: decides which records are held out, and which ``max_records`` keeps; the same seed
            gives the same split.

    Returns:
        Image view: features float32 (n, 1, height, width), in [0, 1] where they are images (3
        channels if the source has colour). Sequence view: (n, steps, features).

    Raises:
        DataError: the data set is missing, broken or does not fit the request.
    """
    reading = read_source(config)
    split = _split(reading, config, seed)
    train = _drawn(as_view(split.train, config.view), config, seed)
    return Split(
        train,
        as_view(split.test, config.view),
        reading.done,
        (*reading.warnings, *_unlearned(train, reading)),
    )


def load_folder(config: DataConfig, seed: int = 0) -> Dataset:
    """Load a device's own records, all of them for training.

    From a folder in ``idx`` format only the training files are read, from other sources only the
    training records are used; nothing is held out. ``digits`` gives all its records.

    Args:
        config: source, view and ``max_records``; ``directory`` is the device's folder.
        seed: decides which records ``max_records`` keeps.

    Returns:
        As `load_split`.

    Raises:
        DataError: the data set is missing, broken or does not fit the request; or its labels are
            words and ``classes`` does not say which there are: one device may lack some.
    """
    if config.source in _NAMED and not config.classes:
        raise DataError(
            f"{config.directory}: a device may lack a class that others have, and would number "
            "them differently",
            hint="state all classes in their order with data.classes",
        )
    return _drawn(as_view(_read_train(config), config.view), config, seed)


def read_source(config: DataConfig, *, is_part: bool = False) -> Reading:
    """Read all records of a source, before any are held out.

    Args:
        config: the source and its settings.
        is_part: these are the records of one device.

    Raises:
        DataError: they cannot be read, or are no records with a class each.
    """
    # Modules of sources are imported when they are used: some need packages of their own.
    from calyx.shared.config import data_settings
    from calyx.shared.data.sources.source_records import Reading

    value_range = data_settings.value_range(config.value_range)
    match config.source:
        case "idx":
            from calyx.shared.data.sources.idx import read_idx

            train, test = (
                read_idx(config.directory, part, classes=config.classes, value_range=value_range)
                for part in ("train", "t10k")
            )
            return Reading(train, test)
        case "npz":
            from calyx.shared.data.sources.npz import read_npz

            natural_id = config.natural_id if config.partition == "natural" else None
            return read_npz(
                config.directory, natural_id, classes=config.classes, value_range=value_range
            )
        case "hub":
            from calyx.shared.data.sources.hub import read_hub

            return read_hub(config)
        case "table":
            from calyx.shared.data.sources.table import read_table

            return read_table(config, is_part=is_part).classified()
        case "images":
            from calyx.shared.data.sources.images import read_images

            return read_images(config).classified()
        case "audio":
            from calyx.shared.data.sources.audio import read_audio

            return read_audio(config).classified()
        case "sensors":
            from calyx.shared.data.sources.sensors import read_sensors

            return read_sensors(config).classified()
        case "digits":
            from calyx.shared.data.sources.digits import read_digits

            return Reading(read_digits())


def _read_train(config: DataConfig) -> Dataset:
    if config.source == "idx":
        from calyx.shared.config import data_settings
        from calyx.shared.data.sources.idx import read_idx

        value_range = data_settings.value_range(config.value_range)
        return read_idx(config.directory, "train", classes=config.classes, value_range=value_range)
    # A device is one client: whose records they are is no question.
    return read_source(config.model_copy(update={"partition": "iid"}), is_part=True).train


def _split(reading: Reading, config: DataConfig, seed: int) -> Split:
    if reading.test is not None:
        return Split(reading.train, reading.test)
    together = config.hold_out
    if together == "auto":
        has_clients = reading.train.natural_ids is not None
        together = "record" if config.source != "sensors" else "client" if has_clients else "file"
    if together == "record":
        if config.source == "sensors":
            raise DataError(
                "data.hold_out = record would put windows of one recording on both sides of the "
                "test split",
                hint="use file or client",
            )
        return hold_out(reading.train, config.test_fraction, seed)
    groups = reading.files if together == "file" else reading.train.natural_ids
    if groups is None:
        raise DataError(
            f"data.hold_out = {together}: source {config.source} does not say which {together} a "
            "record is of",
            hint="use record, or name it in data.name_pattern or data.natural_id",
        )
    return hold_out_together(reading.train, groups, config.test_fraction, seed)


def _unlearned(train: Dataset, reading: Reading) -> tuple[str, ...]:
    """A sentence if classes of the source are left without training records."""
    there = np.unique(reading.train.labels)
    missing = np.setdiff1d(there, train.labels)
    if not len(missing):
        return ()
    return (
        f"{len(missing)} of {len(there)} classes have no training records any more (the first is "
        f"{missing[0]}): raise data.max_records, lower data.test_fraction, or use another seed",
    )


def _drawn(train: Dataset, config: DataConfig, seed: int) -> Dataset:
    """At most ``max_records``, any of them equally likely, in their order."""
    if not config.max_records or config.max_records >= len(train):
        return train
    rng = np.random.default_rng((_STREAM, seed))
    kept = rng.choice(len(train), config.max_records, replace=False, shuffle=False)
    return train.subset(np.sort(kept))
