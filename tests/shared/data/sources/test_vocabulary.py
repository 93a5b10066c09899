"""Vocabularies as a configuration names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from calyx.shared.config import data_settings
from calyx.shared.data.sources.vocabulary import vocabulary_of
from calyx.shared.errors import DataError


def test_buckets_and_characters_need_no_file() -> None:
    assert vocabulary_of("hashed:100").size == 101
    assert (
        vocabulary_of("characters").tokens("a a")[0] == vocabulary_of("characters").tokens("a")[0]
    )


def test_a_list_of_words_has_a_number_for_each_and_one_for_all_others(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("good\n\nbad\n")
    listed = vocabulary_of(f"list:{words}")
    assert listed.size == 4
    assert listed.tokens("Good, bad") == [2, 1, 3]


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"two words\n", b"same\nsame\n"])
def test_a_list_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(DataError):
        vocabulary_of(f"list:{tmp_path / 'words.txt'}")


@pytest.mark.parametrize("setting", ["", "hashed", "hashed:1", "hashed:x", "list:", "characters:x"])
def test_other_words_are_no_vocabulary(setting: str) -> None:
    with pytest.raises(ValueError, match="hashed:N"):
        data_settings.vocabulary(setting)
