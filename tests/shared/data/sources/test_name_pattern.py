"""Patterns of file names."""

from __future__ import annotations

import pytest

from calyx.shared.data.sources.name_pattern import NamePattern, is_named
from calyx.shared.errors import DataError


@pytest.mark.parametrize(
    ("pattern", "path", "fields"),
    [
        (
            "{label}_{client}_{index}.wav",
            "recordings/7_jackson_32.wav",
            {"label": "7", "client": "jackson", "index": "32"},
        ),
        ("{client}/*_sp.csv", "DATA/s01/s01_02_sp.csv", {"client": "s01"}),
        ("{label}/{client}-*.png", "train/cat/anna-3.png", {"label": "cat", "client": "anna"}),
        ("{label}/{client}", "cat", None),
        # A field never holds what parts it from the next, so there is only one way to read a name.
        ("{label}_{index}.wav", "7_jackson_32.wav", {"label": "7", "index": "jackson_32"}),
        ("a.{label}", "axb", None),
    ],
)
def test_a_path_is_read_in_one_way(pattern: str, path: str, fields: dict | None) -> None:
    assert NamePattern(pattern).fields(path) == fields


@pytest.mark.parametrize(
    "pattern", ["{label}{client}", "{label", "{Label}_x", "{a}_{a}", "{label}*", "", "{}.wav"]
)
def test_patterns_that_can_be_read_in_two_ways_are_refused(pattern: str) -> None:
    with pytest.raises(DataError, match=r"data\.name_pattern = "):
        NamePattern(pattern)


def test_names_for_testing_are_globs_of_the_path_or_its_last_part() -> None:
    assert is_named("recordings/3_theo_4.wav", "*_[0-4].wav")
    assert not is_named("recordings/3_theo_14.wav", "*_[0-4].wav")
    assert is_named("s2/a.csv", "s1/*, s2/*")
