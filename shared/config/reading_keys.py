"""Keys of ``[data]`` that say how stored records are read: the owner of a device decides them.

Of these, some say what a record *is* and others only where it stands in the owner's own files. What
a run says about the first kind must be what the owner said, or it learns something else from these
records than was agreed. The second kind is no business of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from calyx.shared.config import data_settings
from calyx.shared.config.schema import DataConfig

WHAT_A_RECORD_IS: Mapping[str, tuple[str, ...]] = {
    "idx": ("classes", "value_range"),
    "npz": ("classes", "value_range"),
    "table": ("label", "classes", "columns", "bounds", "categories", "missing"),
    "images": ("classes", "value_range", "image_size", "colour"),
    "audio": ("classes", "sample_rate", "seconds", "mels"),
    "sensors": ("label", "classes", "columns", "bounds", "orientation", "window", "window_step"),
    "text": ("text", "label", "classes", "vocabulary", "length"),
    "task": (),
}
"""By source, for all sources that a device can have."""

_WHERE_IT_STANDS: Mapping[str, tuple[str, ...]] = {
    "table": ("record_id", "natural_id", "encoding"),
    "images": ("name_pattern",),
    "audio": ("name_pattern",),
    "sensors": ("name_pattern", "encoding"),
    "text": ("layout", "encoding"),
}
# Of a run and not of a record: which records there are, who has them, what is held out for testing;
# `view` is how a model looks at them.
NOT_READING = frozenset(
    {
        *("source", "view", "directory", "hub_name", "hub_features", "hub_label", "allow_download"),
        *("partition", "dirichlet_alpha", "classes_per_client", "min_records", "max_records"),
        *("test_fraction", "test_names", "hold_out"),
    }
)
# Sources whose labels are numbers already: to state as many classes as there are changes nothing.
_NUMBERED = frozenset({"idx", "npz"})


def reading_keys(source: str) -> tuple[str, ...]:
    """All keys by which a source reads records."""
    return (*WHAT_A_RECORD_IS.get(source, ()), *_WHERE_IT_STANDS.get(source, ()))


def reading_settings(source: str, data: DataConfig) -> dict[str, Any]:
    """What `data` says about these keys, without those that have their default."""
    return {
        key: value
        for key in reading_keys(source)
        if (value := getattr(data, key)) != DataConfig.model_fields[key].default
    }


def differences(source: str, asked: DataConfig, own: DataConfig) -> list[tuple[str, Any, Any]]:
    """Keys by which two configurations make different records of the same files.

    Args:
        source: that the files are read by.
        asked: of a run.
        own: of the owner.

    Returns:
        Key, value asked for, and the owner's value. Values that are written in two ways and mean
        the same are the same. Of lists of words only the file's name is compared: each machine has
        it in another folder.
    """
    return [
        (f"data.{key}", getattr(asked, key), getattr(own, key))
        for key in WHAT_A_RECORD_IS.get(source, ())
        if not _mean_the_same(source, key, getattr(asked, key), getattr(own, key))
    ]


def _mean_the_same(source: str, key: str, asked: Any, own: Any) -> bool:
    if key == "classes" and source in _NUMBERED:
        counts = [_count(asked), _count(own)]
        if None not in counts:
            return counts[0] == counts[1] or 0 in counts
    return bool(_meaning(key, asked) == _meaning(key, own))


def _count(classes: str) -> int | None:
    """How many, where classes are numbered from 0 on; 0: not stated; None: they have names."""
    names = data_settings.class_names(classes)
    return len(names) if names == tuple(map(str, range(len(names)))) else None


def _meaning(key: str, value: Any) -> Any:
    match key:
        case "label" | "columns":
            return data_settings.names(value)
        case "classes":
            return data_settings.class_names(value)
        case "value_range":
            return data_settings.value_range(value)
        case "bounds":
            return data_settings.bounds(value)
        case "categories":
            return data_settings.categories(value)
        case "image_size":
            return data_settings.image_size(value)
        case "vocabulary":
            kind, rest = data_settings.vocabulary(value)
            return kind, PurePath(rest).name if kind == "list" else rest
    return value
