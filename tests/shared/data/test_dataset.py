from __future__ import annotations

import numpy as np
import pytest

from calyx.shared.data import Dataset, Split
from calyx.shared.errors import DataError


def made(
    features: np.ndarray | None = None, labels: np.ndarray | None = None, classes: int = 3
) -> Dataset:
    if features is None:
        features = np.arange(24, dtype=np.float32).reshape(6, 2, 2)
    if labels is None:
        labels = np.array([0, 1, 2, 0, 1, 2], dtype=np.int64)
    return Dataset(features, labels, classes)


def test_tells_its_size_and_shape() -> None:
    data = made()
    assert (len(data), data.input_shape, data.classes) == (6, (2, 2), 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_refuses_values_that_are_not_finite_and_names_the_record(value: float) -> None:
    features = np.zeros((6, 2), np.float32)
    features[4, 1] = value
    with pytest.raises(DataError, match="record 4 holds a NaN or infinite value"):
        made(features)


@pytest.mark.parametrize(
    ("features", "labels", "classes", "message"),
    [
        (np.zeros((6, 2)), np.zeros(6, np.int64), 3, "must be float32"),
        (np.zeros(6, np.float32), np.zeros(6, np.int64), 3, "must be float32"),
        (np.zeros((6, 2), np.float32), np.zeros(6, np.int32), 3, "must be int64"),
        (np.zeros((6, 2), np.float32), np.zeros((6, 1), np.int64), 3, "must be int64"),
        (np.zeros((6, 2), np.float32), np.zeros(5, np.int64), 3, "6 records but 5 labels"),
        (np.zeros((0, 2), np.float32), np.zeros(0, np.int64), 3, "no values"),
        (np.zeros((6, 0), np.float32), np.zeros(6, np.int64), 3, "no values"),
        (np.zeros((6, 2), np.float32), np.full(6, 3), 3, "label 3 is out of range"),
        (np.zeros((6, 2), np.float32), np.full(6, -1), 3, "label -1 is out of range"),
        (np.zeros((6, 2), np.float32), np.zeros(6, np.int64), 1, "at least two"),
        (np.zeros((6, 2), np.float32), np.zeros(6, np.int64), 10**9, "number the classes"),
    ],
)
def test_refuses_arrays_that_do_not_fit(
    features: np.ndarray, labels: np.ndarray, classes: int, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Dataset(features, labels, classes)


@pytest.mark.parametrize(
    "ids", [np.zeros(5, np.int64), np.zeros(6, np.float64), np.array([None] * 6, dtype=object)]
)
def test_refuses_client_ids_that_do_not_fit(ids: np.ndarray) -> None:
    with pytest.raises(DataError, match="client ids are"):
        Dataset(made().features, made().labels, 3, ids)


def test_subset_keeps_records_labels_and_ids_together_in_the_order_asked_for() -> None:
    data = Dataset(made().features, made().labels, 3, np.arange(6) * 10)
    part = data.subset(np.array([4, 1]))
    assert np.array_equal(part.features, data.features[[4, 1]])
    assert part.labels.tolist() == [1, 1]
    assert part.natural_ids is not None
    assert part.natural_ids.tolist() == [40, 10]
    assert part.classes == 3


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 6], "record 6 was requested but there are 6"),
        ([-1, 2], "record -1 was requested"),
        ([2, 2], "requested twice"),
        ([], "no records"),
    ],
)
def test_subset_refuses_indices_that_are_out_of_range_or_repeated(
    indices: list[int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        made().subset(np.array(indices, dtype=np.int64))


def test_fingerprint_depends_on_every_value_label_order_and_shape() -> None:
    data = made()
    changed = data.features.copy()
    changed[5, 1, 1] += 1
    others = [
        made(changed),
        made(labels=np.array([0, 1, 2, 0, 1, 1])),
        data.subset(np.array([1, 0, 2, 3, 4, 5])),
        data.subset(np.arange(5)),
        made(data.features.reshape(6, 4)),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 6


def test_fingerprint_does_not_depend_on_layout_or_ids_and_is_pinned() -> None:
    data = made()
    same = Dataset(np.asfortranarray(data.features), data.labels, 5, np.arange(6))
    assert data.fingerprint == same.fingerprint
    # Ledgers written by earlier versions must still recognise their data.
    assert data.fingerprint == "a152537805de0b5c50e9c738b3d661760340844fe2fa2b3bdf72032dbd6e0dbc"


def test_records_do_not_appear_in_repr() -> None:
    spec = "RecordSpec(inputs=(('x', Floats(shape=(2, 2))),), target=Classes(number=3, names=()))"
    expected = f"Dataset(target=Classes(number=3, names=()), inputs=None, spec={spec})"
    assert repr(made()) == expected


def test_split_refuses_parts_of_different_data_sets() -> None:
    with pytest.raises(DataError, match=r"are \(2, 2\) with 3 classes but test records \(4,\) "):
        Split(made(), made(made().features.reshape(6, 4)))
    with pytest.raises(DataError, match="3 classes but test records .* with 4 classes"):
        Split(made(), made(classes=4))
