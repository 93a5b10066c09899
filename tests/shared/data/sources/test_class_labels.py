"""Labels of any kind as classes."""

from __future__ import annotations

import numpy as np
import pytest

from calyx.shared.data.sources.class_labels import numbered, numbered_integers
from calyx.shared.errors import DataError


def line(record: int) -> str:
    return f"set.csv, line {record + 2}"


def test_words_are_numbered_in_sorted_order_and_numbers_by_value() -> None:
    words = numbered(["dog", "cat", "dog", "cat"], "", line)
    assert words.labels.tolist() == [1, 0, 1, 0] and words.names == ("cat", "dog")
    assert words.done == "classes cat = 0, dog = 1: the labels that occur, in sorted order"
    numbers = numbered(["10", "9", "9", "10"], "", line)
    assert numbers.names == ("9", "10")


def test_stated_classes_are_in_their_order_also_if_one_does_not_occur() -> None:
    found = numbered(["cat", "cat"], "fox, dog, cat", line)
    assert found.labels.tolist() == [2, 2] and found.names == ("fox", "dog", "cat")
    assert numbered(["1", "0"], "3", line).names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("labels", "stated", "message"),
    [
        (["a", "a", "b"], "", r"set\.csv, line 4: label 'b' occurs once"),
        (["a", "a"], "", r"label is 'a' in every record"),
        (
            ["a", "bird"],
            "a,b",
            r"set\.csv, line 3: label 'bird' is not among data\.classes \(a, b\)",
        ),
        ([str(i) for i in range(30)], "", r"30 different values of label in 30 records"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, stated: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        numbered(labels, stated, line)


def test_numbers_far_apart_are_refused_or_mapped_by_a_stated_table() -> None:
    labels = [np.array([25000, 41401, 25000]), np.array([41401])]
    with pytest.raises(
        DataError, match=r"up to 41401 but only 2 .*\nhint: set data\.classes=25000,41401 "
    ):
        numbered_integers(labels, "")
    (train, test), classes, done = numbered_integers(labels, "25000,41401")
    assert train.tolist() == [0, 1, 0] and test.tolist() == [1] and classes == 2
    assert done == "classes 25000 = 0, 41401 = 1: as data.classes states"
    (train, _), _, _ = numbered_integers(labels, "41401,25000")
    assert train.tolist() == [1, 0, 1]
    with pytest.raises(DataError, match="record 1: label 41401 is not among"):
        numbered_integers(labels, "25000,9")


def test_a_class_that_does_not_occur_can_be_stated() -> None:
    labels = [np.array([0, 3])]
    assert numbered_integers(labels, "")[1] == 4
    assert numbered_integers(labels, "10")[1] == 10
    found, classes, _ = numbered_integers(labels, "a,b,c,d,e")
    assert (found[0].tolist(), classes) == ([0, 3], 5)
