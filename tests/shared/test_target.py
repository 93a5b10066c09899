"""What a label may be, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calyx.shared.errors import DataError
from calyx.shared.models.inputs import made_up_labels
from calyx.shared.target import Classes, MultiLabel, NextTokens, OwnTarget, Reals, Target

TARGETS: dict[str, tuple[Target, tuple[int, ...], str, tuple[int, ...]]] = {
    "classes": (Classes(10), (), "int64", (10,)),
    "named classes": (Classes(2, ("ill", "well")), (), "int64", (2,)),
    "labels": (MultiLabel(14), (14,), "float32", (14,)),
    "one label": (MultiLabel(1, ("smoker",)), (1,), "float32", (1,)),
    "reals": (Reals(25, 346), (), "float32", (1,)),
    "tokens": (NextTokens((80,), 65), (80,), "int64", (80, 65)),
    "own floats": (OwnTarget((2, 3), "float32"), (2, 3), "float32", (6,)),
    "own numbers": (OwnTarget((), "int64"), (), "int64", (1,)),
}


def zeros(target: Target, n: int = 3) -> np.ndarray[Any, Any]:
    return np.zeros((n, *target.shape), target.dtype)


@pytest.mark.parametrize(("target", "shape", "dtype", "outputs"), TARGETS.values(), ids=TARGETS)
def test_each_says_what_a_label_is_and_how_many_numbers_predict_it(
    target: Target, shape: tuple[int, ...], dtype: str, outputs: tuple[int, ...]
) -> None:
    assert (target.shape, target.dtype, target.output_shape) == (shape, dtype, outputs)
    assert target.outputs == outputs[-1]
    assert hash(target) == hash(TARGETS[next(k for k, v in TARGETS.items() if v[0] == target)][0])


def test_people_read_what_it_is() -> None:
    told = [str(TARGETS[name][0]) for name in ("classes", "labels", "reals", "tokens")]
    assert told[:2] == ["10 classes", "14 labels, any of them"]
    assert told[2:] == ["a real value, 25 to 346", "the next of 65 tokens, 80 steps"]
    assert str(OwnTarget((2, 3), "float32")) == "float32 (2, 3)"


@pytest.mark.parametrize("name", list(TARGETS))
@given(n=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
def test_labels_made_up_for_it_are_taken(name: str, n: int, seed: int) -> None:
    target = TARGETS[name][0]
    drawn = made_up_labels(target, n, torch.Generator().manual_seed(seed)).numpy()
    target.check(drawn)
    assert drawn.shape == (n, *target.shape)


@pytest.mark.parametrize("name", list(TARGETS))
def test_another_dtype_or_shape_is_refused_with_what_is_wanted(name: str) -> None:
    target = TARGETS[name][0]
    target.check(zeros(target))
    other = {"int64": "int32", "float32": "float64"}[target.dtype]
    wanted = rf"labels must be {target.dtype} \(records.*\nhint: convert and reshape"
    for labels in (
        zeros(target).astype(other),
        zeros(target).astype("float32" if target.dtype == "int64" else "int64"),
        zeros(target)[..., np.newaxis],
        np.zeros((), target.dtype),
    ):
        with pytest.raises(DataError, match=wanted):
            target.check(labels)
    if target.shape:
        with pytest.raises(DataError, match=wanted):
            target.check(np.zeros((3, target.shape[0] + 1, *target.shape[1:]), target.dtype))


def changed(target: Target, value: float) -> np.ndarray[Any, Any]:
    """Allowed labels but for one number of record 1."""
    labels = zeros(target)
    labels[(1, *[0] * len(target.shape))] = value
    return labels


@pytest.mark.parametrize(
    ("target", "value", "words"),
    [
        (Classes(3), 3, "label 3 is out of range: with 3 classes labels are 0 to 2"),
        (Classes(3), -1, "label -1 is out of range"),
        (Classes(3), 2**40, "label 1099511627776 is out of range"),
        (MultiLabel(2), 0.5, r"label 0 of record 1 is 0.5\nhint: .* 0 or 1"),
        (MultiLabel(2), 2, "label 0 of record 1 is 2"),
        (MultiLabel(2), -1, "label 0 of record 1 is -1"),
        (MultiLabel(2), np.nan, "label 0 of record 1 is nan"),
        (Reals(0, 1), np.nan, "the label of record 1 is NaN or infinite"),
        (Reals(0, 1), np.inf, "the label of record 1 is NaN or infinite"),
        (Reals(0, 1), -np.inf, "the label of record 1 is NaN or infinite"),
        (NextTokens((4,), 9), 9, "token 9 is out of range: with 9 tokens they are 0 to 8"),
        (NextTokens((4,), 9), -1, "token -1 is out of range"),
        (OwnTarget((2, 2), "float32"), np.nan, "the label of record 1 holds a NaN or infinite"),
        (OwnTarget((), "float32"), np.inf, "the label of record 1 holds a NaN or infinite"),
    ],
)
def test_a_value_that_cannot_be_a_label_is_refused_with_its_place(
    target: Target, value: float, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        target.check(changed(target, value))


@pytest.mark.parametrize(
    ("target", "value"),
    [
        (Classes(3), 2),
        (MultiLabel(2), 1),
        (Reals(0, 1), 7.5),  # the bounds say how it is learned, not what it may be
        (Reals(0, 1), -1e30),
        (NextTokens((4,), 9), 8),
        (OwnTarget((2, 2), "float32"), -1e30),
        (OwnTarget((2,), "int64"), -(2**63)),
    ],
)
def test_values_at_the_edge_are_labels(target: Target, value: float) -> None:
    target.check(changed(target, value))


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        (Classes, (1,), "there is 1 class"),
        (Classes, (0,), "at least two classes"),
        (Classes, (2**20 + 1,), "labels go up to 1048576; at most 1048576 classes"),
        (MultiLabel, (0,), "there are 0 labels"),
        (MultiLabel, (2**20 + 1,), "there are 1048577 labels"),
        (Reals, (1.0, 1.0), "cannot lie between 1 and 1"),
        (Reals, (2.0, 1.0), "give the lower bound first"),
        (Reals, (np.nan, 1.0), "cannot lie between nan and 1"),
        (Reals, (0.0, np.inf), "cannot lie between 0 and inf"),
        (NextTokens, ((), 9), "cannot be predicted"),
        (NextTokens, ((0,), 9), "at least one step"),
        (NextTokens, ((4, 4), 9), "cannot be predicted"),
        (NextTokens, ((4,), 1), "two tokens"),
    ],
)
def test_a_target_that_cannot_be_learned_is_refused(
    kind: type[Target], arguments: tuple[Any, ...], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        kind(*arguments)


def test_real_values_are_learned_between_their_public_bounds() -> None:
    target = Reals(25, 346)
    assert (target.centre, target.half_width) == (185.5, 160.5)
    assert (Reals().centre, Reals().half_width) == (0, 1)
