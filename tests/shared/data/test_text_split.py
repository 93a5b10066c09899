"""Text as a run reads it: by its task, and with whole clients held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calyx.shared.config.schema import DataConfig, TaskConfig
from calyx.shared.data import load_split
from calyx.shared.errors import DataError
from calyx.shared.target import Classes, NextTokens

NEXT = TaskConfig(kind="next_token")


@pytest.fixture
def play(tmp_path: Path) -> Path:
    """Ten roles, each with words of its own."""
    place = tmp_path / "play.txt"
    speech = "\n".join(f"word{number} and more" for number in range(9))
    roles = [f"ROLE{c}:\n{speech.replace('word', c * 4)}" for c in "abcdefghij"]
    place.write_text("\n\n".join(roles))
    return place


def config(place: Path, **keys: object) -> DataConfig:
    settings = {"source": "text", "directory": str(place), "vocabulary": "characters"}
    return DataConfig.model_validate({**settings, "length": 16, **keys})


def test_the_label_of_each_token_is_the_one_that_follows(play: Path) -> None:
    train = load_split(config(play), 0, NEXT).train
    assert train.spec.target == NextTokens((16,), 98)
    (tokens,) = train.columns.values()
    assert tokens.shape == train.labels.shape == (len(train), 16)
    assert np.array_equal(tokens[:, 1:], train.labels[:, :-1])
    # The last one of a record is followed too.
    assert (train.labels[:, -1] != 0).any()


def test_no_role_is_on_both_sides_of_the_test_split(play: Path) -> None:
    split = load_split(config(play), 3, NEXT)
    assert split.train.natural_ids is not None and split.test.natural_ids is not None
    told, tested = set(split.train.natural_ids), set(split.test.natural_ids)
    assert told and tested and not told & tested


def test_single_records_are_held_out_only_where_that_is_asked_for(play: Path) -> None:
    split = load_split(config(play, hold_out="record"), 3, NEXT)
    assert split.train.natural_ids is not None and split.test.natural_ids is not None
    assert set(split.train.natural_ids) & set(split.test.natural_ids)


def test_speeches_have_no_classes(play: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_split(config(play), 0)
    assert "task.kind=next_token" in caught.value.hint


def test_sentences_in_one_file_a_class_are_read_with_words_in_buckets(tmp_path: Path) -> None:
    for name in ("neg", "pos"):
        lines = [f"a {name} sentence number {number}" for number in range(20)]
        (tmp_path / f"reviews.{name}").write_text("\n".join(lines))
    split = load_split(config(tmp_path, vocabulary="hashed:50", length=8, classes="neg,pos"), 0)
    assert split.train.spec.target == Classes(2)
    (tokens,) = split.train.columns.values()
    assert tokens.shape[1:] == (8,) and tokens.max() <= 50
    assert len(split.train) + len(split.test) == 40


def test_what_a_text_is_laid_out_like_has_to_be_seen_or_said(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("just some lines\nwithout labels\nor roles\n")
    with pytest.raises(DataError) as caught:
        load_split(config(tmp_path / "notes.txt"), 0)
    assert "data.layout" in caught.value.hint
