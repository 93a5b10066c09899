from __future__ import annotations

import numpy as np
import pytest

from calyx.shared.data import Dataset, Split
from calyx.shared.errors import DataError
from calyx.shared.record_spec import Floats, Input, Length, Mask, RecordSpec, Tokens
from calyx.shared.target import Classes, MultiLabel, NextTokens, OwnTarget, Reals, Target


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


TEXT = {
    "tokens": Tokens((3,), 9),
    "length": Length("tokens"),
    "real": Mask("tokens"),
    "rest": Floats((2, 2)),
}


def columns() -> dict[str, np.ndarray]:
    return {
        "tokens": np.array([[5, 8, 0], [1, 0, 0], [2, 2, 2]], dtype=np.int64),
        "length": np.array([2, 1, 3], dtype=np.int64),
        "real": np.array([[True, True, False], [True, False, False], [True, True, True]]),
        "rest": np.arange(12, dtype=np.float32).reshape(3, 2, 2),
    }


def text(
    inputs: dict[str, Input] | None = None,
    labels: np.ndarray | None = None,
    target: Target | int = 2,
    **changed: np.ndarray,
) -> Dataset:
    """Three records of four inputs, with `changed` ones in place of theirs."""
    labels = np.array([0, 1, 1], dtype=np.int64) if labels is None else labels
    return Dataset(columns() | changed, labels, target, inputs=TEXT if inputs is None else inputs)


def tokens(values: np.ndarray, steps: int = 3) -> Dataset:
    labels = np.zeros(len(values), dtype=np.int64)
    return Dataset(values, labels, 2, inputs={"x": Tokens((steps,), 9)})


LABELS: dict[str, tuple[Target, np.ndarray]] = {
    "classes": (Classes(2), np.array([0, 1, 1], dtype=np.int64)),
    "labels": (MultiLabel(2), np.array([[0, 1], [1, 1], [0, 0]], dtype=np.float32)),
    "reals": (Reals(0, 5), np.array([0.5, -2, 7], dtype=np.float32)),
    "tokens": (NextTokens((3,), 9), np.array([[8, 0, 0], [0, 0, 0], [2, 2, 0]], dtype=np.int64)),
    "own": (OwnTarget((2, 1), "float32"), np.ones((3, 2, 1), dtype=np.float32)),
}


def test_records_of_several_inputs_are_kept_by_name_in_the_order_they_are_described() -> None:
    data = Dataset(dict(reversed(columns().items())), np.array([0, 1, 1]), 2, inputs=TEXT)
    assert list(data.columns) == ["tokens", "length", "real", "rest"]
    assert all(np.array_equal(data.columns[name], x) for name, x in columns().items())
    assert (len(data), data.classes) == (3, 2)
    assert data.spec == RecordSpec.of(Classes(2), **TEXT)
    for ask in (lambda: data.floats, lambda: data.input_shape):
        with pytest.raises(DataError, match=r"records of tokens: int64 \(3,\) below 9, length"):
            ask()


def test_records_of_one_input_of_tokens_are_one_array() -> None:
    data = tokens(columns()["tokens"])
    assert data.spec == RecordSpec.tokens((3,), 9, Classes(2))
    assert np.array_equal(data.columns["x"], columns()["tokens"])
    with pytest.raises(DataError, match="are not one array of float32 values"):
        _ = data.floats


@pytest.mark.parametrize("name", list(LABELS))
def test_labels_are_of_the_kind_that_is_stated(name: str) -> None:
    target, labels = LABELS[name]
    for data in (text(labels=labels, target=target), Dataset(made().features[:3], labels, target)):
        assert data.spec.target == target
        part = data.subset(np.array([2, 0]))
        assert np.array_equal(part.labels, labels[[2, 0]])
        assert part.spec == data.spec
    for other, (wrong, _) in LABELS.items():
        if other != name:
            with pytest.raises(DataError, match="labels must be|out of range"):
                text(labels=labels, target=wrong)


@pytest.mark.parametrize("name", ["labels", "reals", "tokens", "own"])
def test_labels_that_are_no_classes_have_no_number_of_them_and_are_not_stratified(
    name: str,
) -> None:
    target, labels = LABELS[name]
    data = text(labels=labels, target=target)
    with pytest.raises(DataError, match="the labels are no classes but"):
        _ = data.classes
    assert data.strata.tolist() == [0, 0, 0]
    assert text().strata.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"tokens": columns()["tokens"].astype(np.int32)}, r"input tokens must be int64 \(3, 3\)"),
        ({"tokens": columns()["tokens"][:, :2]}, r"input tokens must be int64 \(3, 3\), not"),
        ({"tokens": columns()["tokens"][:2]}, "2 records but 3 labels"),
        ({"tokens": np.full((3, 3), 9)}, "input tokens: record 0 holds a value that is not 0 to 8"),
        ({"tokens": np.array([[1, 1, 1], [1, 1, -1], [1, 1, 1]])}, "record 1 holds a value"),
        ({"tokens": np.full((3, 3), 2**40)}, "not 0 to 8\nhint: read it with the vocabulary"),
        ({"length": np.array([1, 0, 3])}, "input length: record 1 holds a value .* 1 to 3"),
        ({"length": np.array([1, 2, 4])}, "input length: record 2 holds a value .* 1 to 3"),
        ({"length": np.array([[1], [2], [3]])}, r"input length must be int64 \(3,\)"),
        ({"real": np.ones((3, 3), dtype=np.int64)}, r"input real must be bool \(3, 3\)"),
        ({"real": np.ones((3, 2), dtype=bool)}, r"input real must be bool \(3, 3\)"),
        ({"rest": np.zeros((3, 2, 2))}, r"input rest must be float32 \(3, 2, 2\), not float64"),
        ({"rest": np.full((3, 2, 2), np.nan, np.float32)}, "record 0 holds a NaN or infinite"),
        ({"more": np.zeros(3)}, "given for length, more, .* but the inputs are length, real"),
    ],
)
def test_an_input_that_does_not_fit_its_description_is_refused_by_name(
    changed: dict[str, np.ndarray], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        text(**changed)


def test_inputs_and_descriptions_belong_together() -> None:
    labels = np.array([0, 1, 1])
    with pytest.raises(DataError, match="features of several inputs need a description"):
        Dataset(columns(), labels, 2)
    with pytest.raises(DataError, match="features are given for"):
        Dataset({"tokens": columns()["tokens"]}, labels, 2, inputs=TEXT)
    with pytest.raises(DataError, match="one array for a single input"):
        Dataset({"x": columns()["tokens"]}, labels, 2, inputs={"x": Tokens((3,), 9)})
    with pytest.raises(DataError, match="one array for a single input"):
        Dataset(columns()["tokens"], labels, 2, inputs=TEXT)
    with pytest.raises(DataError, match=r"must be int64 \(0, 3\)"):
        tokens(columns()["tokens"][:0])
    with pytest.raises(DataError, match="features: record 2 holds a value that is not 0 to 8"):
        tokens(np.array([[1, 2, 3], [0, 0, 0], [0, 9, 0]]))


def test_a_subset_keeps_all_inputs_of_a_record_together_as_a_copy() -> None:
    data = text()
    part = data.subset(np.array([2, 0]))
    assert all(np.array_equal(x, data.columns[name][[2, 0]]) for name, x in part.columns.items())
    assert part.labels.tolist() == [1, 0]
    assert not any(np.shares_memory(x, data.columns[name]) for name, x in part.columns.items())


def bumped(name: str) -> np.ndarray:
    """An input with one number changed, in the last record."""
    x = columns()[name].copy()
    x[-1] = ~x[-1] if x.dtype == bool else x[-1] - 1
    return x


def test_a_fingerprint_covers_every_input_its_name_and_every_label() -> None:
    renamed = {"words" if name == "tokens" else name: x for name, x in columns().items()}
    described = {
        "words": Tokens((3,), 9),
        "length": Length("words"),
        "real": Mask("words"),
        "rest": Floats((2, 2)),
    }
    swapped = {**TEXT, "a": Floats((2, 2)), "b": Floats((2, 2))}
    one, two = columns()["rest"], columns()["rest"] + 1
    data = [
        text(),
        *(text(**{name: bumped(name)}) for name in TEXT),
        Dataset(renamed, text().labels, 2, inputs=described),
        text(swapped, a=one, b=two),
        text(swapped, a=two, b=one),
        *(text(labels=labels, target=target) for target, labels in list(LABELS.values())[1:]),
        tokens(columns()["tokens"]),
    ]
    assert len({each.fingerprint for each in data}) == len(data)


@pytest.mark.parametrize("name", list(LABELS))
def test_a_fingerprint_changes_with_a_number_of_one_label(name: str) -> None:
    target, labels = LABELS[name]
    other = labels.copy()
    other[(-1, *[0] * (labels.ndim - 1))] = 0 if labels.dtype == np.int64 else 1.5
    if name == "labels":
        other[-1, 0] = 1
    first, second = (text(labels=each, target=target) for each in (labels, other))
    assert first.fingerprint != second.fingerprint
    assert first.fingerprint == text(labels=labels.copy(order="F"), target=target).fingerprint


def test_a_fingerprint_does_not_depend_on_the_order_or_memory_of_inputs() -> None:
    mixed = {name: np.asfortranarray(x) for name, x in reversed(columns().items())}
    assert Dataset(mixed, text().labels, 2, inputs=TEXT).fingerprint == text().fingerprint


def with_signs() -> Dataset:
    features = (np.arange(24, dtype=np.float32) - 7.5).reshape(6, 2, 2) / 3
    features[2, 0, 1] = -0.0
    return made(features)


def test_fingerprints_and_hashes_of_todays_data_are_those_of_earlier_versions() -> None:
    # Computed with the code before there were tasks: ledgers and registries from then know their
    # records by them.
    data = with_signs()
    expected = "6449746f488e78102786271e18673965d60e2fb50d4aafd4ea728d9f48817323"
    assert data.fingerprint == expected
    stored = [data.features.reshape(6, -1) + np.float32(0), data.labels[:, np.newaxis]]
    before = np.hstack([x.astype(x.dtype.newbyteorder("<")).view(np.uint8) for x in stored])
    assert np.array_equal(data.record_bytes(0, 6), before)
    assert np.array_equal(data.record_bytes(4, 6), before[4:])
    assert np.array_equal(data.record_bytes(4, 100), before[4:])


def test_bytes_of_a_record_are_equal_for_equal_values_in_any_shape() -> None:
    data = with_signs()
    plus = data.floats.copy()
    plus[2, 0, 1] = 0.0
    for same in (made(plus.reshape(6, 4)), made(np.asfortranarray(plus))):
        assert np.array_equal(same.record_bytes(0, 6), data.record_bytes(0, 6))


@pytest.mark.parametrize("name", list(TEXT))
def test_bytes_of_a_record_change_with_each_of_its_inputs_and_no_other_record(name: str) -> None:
    before, after = text().record_bytes(0, 3), text(**{name: bumped(name)}).record_bytes(0, 3)
    assert np.array_equal(before[:2], after[:2])
    assert not np.array_equal(before[2], after[2])


@pytest.mark.parametrize("name", list(LABELS))
def test_bytes_of_a_record_hold_its_whole_label(name: str) -> None:
    target, labels = LABELS[name]
    content = text(labels=labels, target=target).record_bytes(0, 3)
    little = np.ascontiguousarray(labels, labels.dtype.newbyteorder("<"))
    tail = little.reshape(3, -1).view(np.uint8)
    assert np.array_equal(content[:, -tail.shape[1] :], tail)


def test_a_split_is_of_one_kind_of_records_and_labels() -> None:
    Split(text(), text())
    wider = {**TEXT, "tokens": Tokens((3,), 10)}
    for other in (
        text(wider),
        text(labels=LABELS["reals"][1], target=Reals(0, 5)),
        tokens(columns()["tokens"]),
    ):
        with pytest.raises(DataError, match="training records are .* but test records"):
            Split(text(), other)
