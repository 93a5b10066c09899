"""Settings of a run that make another record of the same file, and those it has no say in."""

from __future__ import annotations

import pytest

from calyx.shared.config.reading_keys import (
    NOT_READING,
    WHAT_A_RECORD_IS,
    differences,
    reading_keys,
    reading_settings,
)
from calyx.shared.config.schema import DataConfig


def data(**keys: object) -> DataConfig:
    return DataConfig.model_validate(keys)


@pytest.mark.parametrize(
    ("source", "key", "asked", "own"),
    [
        ("table", "label", "age", "ill"),
        ("table", "classes", "well,ill", "ill,well"),
        ("table", "columns", "a,b", "b,a"),
        ("table", "bounds", "a=0:1", "a=0:2"),
        ("table", "categories", "c=x|y", "c=y|x"),
        ("table", "missing", "indicator", "refuse"),
        ("images", "image_size", "32x32", "28x28"),
        ("images", "colour", "rgb", "grey"),
        ("npz", "value_range", "0,4095", ""),
        ("idx", "classes", "3,5", "5,3"),
        ("npz", "classes", "10", "12"),
        ("audio", "sample_rate", 8000, 16000),
        ("audio", "seconds", 2.0, 1.0),
        ("audio", "mels", 20, 40),
        ("sensors", "orientation", "gravity", "as_stored"),
        ("sensors", "window", 64, 128),
        ("sensors", "window_step", 1, 0),
        ("text", "text", "title", "body"),
        ("text", "vocabulary", "hashed:100", "characters"),
        ("text", "vocabulary", "list:a/words.txt", "list:a/others.txt"),
        ("text", "length", 32, 64),
    ],
)
def test_what_makes_another_record_is_named_with_both_values(
    source: str, key: str, asked: object, own: object
) -> None:
    found = differences(source, data(**{key: asked}), data(**{key: own}))
    assert found == [(f"data.{key}", asked, own)]


@pytest.mark.parametrize(
    ("source", "key", "asked", "own"),
    [
        ("table", "label", "age, sex", "age,sex"),
        ("table", "bounds", "a=0:1,b=0:2", "b=0:2, a=0.0:1.0"),
        ("npz", "classes", "10", ""),
        ("idx", "classes", "", "0,1,2"),
        ("npz", "classes", "3", "0,1,2"),
        ("text", "vocabulary", "list:/srv/words.txt", "list:~/words.txt"),
    ],
)
def test_what_is_written_otherwise_and_means_the_same_is_the_same(
    source: str, key: str, asked: object, own: object
) -> None:
    assert not differences(source, data(**{key: asked}), data(**{key: own}))


@pytest.mark.parametrize(
    ("source", "key", "asked"),
    [
        ("table", "encoding", "cp1252"),
        ("table", "record_id", "number"),
        ("table", "natural_id", "age"),
        ("audio", "name_pattern", "{label}_{index}.wav"),
        ("text", "layout", "csv"),
        ("npz", "label", "age"),
        ("npz", "window", 7),
        ("table", "max_records", 5),
        ("table", "directory", "/etc"),
    ],
)
def test_where_a_record_stands_and_what_another_source_reads_is_no_concern_of_a_run(
    source: str, key: str, asked: object
) -> None:
    assert not differences(source, data(**{key: asked}), data())


def test_a_preset_gives_a_device_what_its_source_reads_and_nothing_else() -> None:
    preset = data(source="table", label="ill", classes="no,yes", window=9, max_records=5, mels=40)
    assert reading_settings("table", preset) == {"label": "ill", "classes": "no,yes"}
    assert reading_settings("npz", preset) == {"classes": "no,yes"}
    assert not reading_keys("python")


def test_every_key_of_data_is_said_to_be_one_of_reading_or_not() -> None:
    """A key that is forgotten here could make other records without the owner's word."""
    reading = {key for source in WHAT_A_RECORD_IS for key in reading_keys(source)}
    assert reading | NOT_READING == set(DataConfig.model_fields)
    assert not reading & NOT_READING
