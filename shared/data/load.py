"""From a config to records: for a simulation or a server, and for one device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from calyx.shared.data.dataset import Dataset, Split
from calyx.shared.data.holdout import hold_out, hold_out_together
from calyx.shared.data.view import as_view
from calyx.shared.errors import DataError

if TYPE_CHECKING:
    from calyx.shared.config.schema import DataConfig, TaskConfig
    from calyx.shared.data.sources.source_records import Reading
    from calyx.shared.data.sources.table import LabelKind

# Keeps this stream of random numbers apart from others drawn from the same seed.
_STREAM = 0x3A7D
# Sources whose labels are words: what number a word has must be the same for everyone.
_NAMED = frozenset({"table", "images", "audio", "sensors", "text"})
# Sources whose records may be pieces of one recording or text. All that a client has is held out
# together, or the model would be tested on what it was told the rest of; without clients, this is.
_PIECES: Mapping[str, str] = {"sensors": "file", "text": "record"}
_LABEL_KINDS: Mapping[str, LabelKind] = {"regression": "real", "multilabel": "several"}


def load_split(config: DataConfig, seed: int, task: TaskConfig | None = None) -> Split:
    """Load training and test records, in the view that `config` asks for.

    A source without a test set of its own gives ``data.test_fraction`` of its records, drawn
    evenly from all classes; or whole recordings, files or clients, where ``data.hold_out`` says so
    or records are windows of the same recording.

    Args:
        config: source, view, ``test_fraction``, ``hold_out`` and ``max_records``.
        seed: decides which records are held out, and which ``max_records`` keeps; the same seed
            gives the same split.
        task: what is learned from them; None: one class a record.

    Returns:
        Image view: features float32 (n, 1, height, width), in [0, 1] where they are images (3
        channels if the source has colour). Sequence view: (n, steps, features).

    Raises:
        DataError: the data set is missing, broken or does not fit the request.
    """
    reading = read_source(config, task)
    split = _split(reading, config, seed)
    train = _drawn(as_view(split.train, config.view), config, seed)
    return Split(
        train,
        as_view(split.test, config.view),
        reading.done,
        (*reading.warnings, *_unlearned(train, reading)),
    )


def load_folder(config: DataConfig, seed: int = 0, task: TaskConfig | None = None) -> Dataset:
    """Load a device's own records, all of them for training.

    From a folder in ``idx`` format only the training files are read, from other sources only the
    training records are used; nothing is held out. ``digits`` gives all its records.

    Args:
        config: source, view and ``max_records``; ``directory`` is the device's folder.
        seed: decides which records ``max_records`` keeps.
        task: what is learned from them; None: one class a record.

    Returns:
        As `load_split`.

    Raises:
        DataError: the data set is missing, broken or does not fit the request; or its labels are
            words and ``classes`` does not say which there are: one device may lack some.
    """
    train = read_folder(config, task).train
    return _drawn(as_view(train, config.view), config, seed)


def read_folder(config: DataConfig, task: TaskConfig | None = None) -> Reading:
    """Read a device's own records as they are stored, all of them for training.

    Args:
        config: the source and its settings; ``directory`` is the device's folder.
        task: what is learned from them; None: one class a record.

    Returns:
        The records, the file of each, and what to look at; the test set is not read or left out.

    Raises:
        DataError: as `load_folder`.
    """
    task = _or_classes(task)
    takes_classes = task.kind == "classification" or task.is_own
    if config.source in _NAMED and takes_classes and not config.classes:
        raise DataError(
            f"{config.directory}: a device may lack a class that others have, and would number "
            "them differently",
            hint="state all classes in their order with data.classes",
        )
    reading = _read_part(config, task)
    return replace(reading, test=None)


def read_source(
    config: DataConfig, task: TaskConfig | None = None, *, is_part: bool = False
) -> Reading:
    """Read all records of a source, before any are held out.

    Args:
        config: the source and its settings.
        task: what is learned from them; None: one class a record.
        is_part: these are the records of one device.

    Raises:
        DataError: they cannot be read, or have no label of the kind that is learned.
    """
    task = _or_classes(task)
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

            kind: LabelKind = _LABEL_KINDS.get(task.kind, "class")
            return read_table(config, kind, is_part=is_part).learned(task)
        case "images":
            from calyx.shared.data.sources.images import read_images

            return read_images(config).learned(task)
        case "audio":
            from calyx.shared.data.sources.audio import read_audio

            return read_audio(config).learned(task)
        case "sensors":
            from calyx.shared.data.sources.sensors import read_sensors

            return read_sensors(config).learned(task)
        case "text":
            return _read_text(config, task)
        case "task":
            from calyx.shared.data.sources.own_records import read_own
            from calyx.shared.tasks.find import own_task

            return read_own(own_task(task.kind), config.directory)
        case "digits":
            from calyx.shared.data.sources.digits import read_digits

            return Reading(read_digits())


def _or_classes(task: TaskConfig | None) -> TaskConfig:
    from calyx.shared.config.schema import TaskConfig

    return task or TaskConfig()


def _read_text(config: DataConfig, task: TaskConfig) -> Reading:
    from calyx.shared.data.sources.text import TextColumns, layout_of, read_text
    from calyx.shared.data.sources.vocabulary import vocabulary_of

    layout = config.layout
    found = layout_of(config.directory, config.encoding) if layout == "auto" else layout
    if found is None:
        raise DataError(
            f"{config.directory}: how the text is laid out cannot be seen",
            hint="set data.layout to lines, csv, class_files or roles",
        )
    client = config.natural_id if config.partition == "natural" else ""
    # The last token of a record has to be predicted too.
    length = config.length + (task.kind == "next_token")
    return read_text(
        config.directory,
        found,
        vocabulary_of(config.vocabulary),
        length,
        columns=TextColumns(config.text, config.label or "label", client),
        classes=config.classes,
        encoding=config.encoding,
    ).learned(task)


def _read_part(config: DataConfig, task: TaskConfig) -> Reading:
    if config.source == "idx":
        from calyx.shared.config import data_settings
        from calyx.shared.data.sources.idx import read_idx
        from calyx.shared.data.sources.source_records import Reading

        value_range = data_settings.value_range(config.value_range)
        train = read_idx(config.directory, "train", classes=config.classes, value_range=value_range)
        return Reading(train)
    # A device is one client: whose records they are is no question.
    return read_source(config.model_copy(update={"partition": "iid"}), task, is_part=True)


def _split(reading: Reading, config: DataConfig, seed: int) -> Split:
    if reading.test is not None:
        return Split(reading.train, reading.test)
    together: str = config.hold_out
    if together == "auto":
        has_clients = config.source in _PIECES and reading.train.natural_ids is not None
        together = "client" if has_clients else _PIECES.get(config.source, "record")
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
    there = np.unique(reading.train.strata)
    missing = np.setdiff1d(there, train.strata)
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
