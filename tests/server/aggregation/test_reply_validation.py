"""One bad client can neither poison the model nor end the run: every reply is examined."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from calyx.server.aggregation.reply_validation import Update, examine, update_norm
from calyx.shared.errors import ProtocolError
from calyx.shared.protocol.arrays import Weights, to_record


def check(message: Message, reference: Weights, **changes: Any) -> Update:
    limits: dict[str, Any] = {"declared_records": 100, "max_update_norm": 10.0, **changes}
    return examine(message, client="0", reference=reference, **limits)


def test_a_good_reply_passes_unchanged(reply: Callable[..., Message], reference: Weights) -> None:
    update = check(reply({"b": np.array([1, 2], np.float32)}), reference)
    assert update.weights["b"].tolist() == [1, 2]
    assert (update.client, update.records, update.metrics) == ("0", 100, {})


BAD_ARRAYS = {
    "NaN": ({"b": np.array([np.nan, 0], np.float32)}, "array b holds NaN or infinity"),
    "infinity": ({"w": np.full((3, 2), np.inf, np.float32)}, "array w holds NaN or infinity"),
    "NaN in a 0-d array": ({"scale": np.array(np.nan, np.float32)}, "array scale holds NaN"),
    "other shape": ({"b": np.zeros(3, np.float32)}, r"shape \(3,\); expected \(2,\)"),
    "broadcastable shape": ({"b": np.zeros((1, 2), np.float32)}, r"shape \(1, 2\)"),
    "0-d where a vector belongs": ({"b": np.array(0.0, np.float32)}, r"shape \(\); expected"),
    "vector where 0-d belongs": (
        {"scale": np.zeros(1, np.float32)},
        r"shape \(1,\); expected \(\)",
    ),
    "other type": ({"b": np.zeros(2, np.float64)}, "type float64; expected float32"),
    "integers": ({"b": np.zeros(2, np.int32)}, "type int32"),
    "too large": ({"w": np.full((3, 2), 9, np.float32)}, "norm is 22.05; the limit is 10"),
    "float32 overflow": ({"w": np.full((3, 2), 3e38, np.float32)}, "the limit is 10"),
    "an array too many": ({"extra": np.zeros(1, np.float32)}, "'extra' is not part of the model"),
    "much too long": ({"b": np.zeros(10**6, np.float32)}, "has 4000128 bytes"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays_are_rejected(
    name: str, reply: Callable[..., Message], reference: Weights
) -> None:
    arrays, reason = BAD_ARRAYS[name]
    with pytest.raises(ProtocolError, match=reason):
        check(reply(arrays), reference)


BAD_METRICS = {
    "no count": ({}, "states None records"),
    "absurd count": (
        {"num-examples": 10**12},
        "states 1000000000000 records; the client declared 100",
    ),
    "negative count": ({"num-examples": -100}, "states -100 records"),
    "another count": ({"num-examples": 101}, "states 101 records"),
    "NaN count": ({"num-examples": float("nan")}, "'num-examples' must be one finite number"),
    "list as count": ({"num-examples": [100]}, "must be one finite number"),
    "infinite loss": ({"num-examples": 100, "train-loss": float("inf")}, "'train-loss' must be"),
    "unknown metric": ({"num-examples": 100, "odd": 1.0}, "'odd' was not requested"),
}


@pytest.mark.parametrize("name", BAD_METRICS)
def test_bad_metrics_are_rejected(
    name: str, reply: Callable[..., Message], reference: Weights
) -> None:
    metrics, reason = BAD_METRICS[name]
    with pytest.raises(ProtocolError, match=reason):
        check(reply(metrics=metrics), reference)


def test_missing_array_is_rejected(reply: Callable[..., Message], reference: Weights) -> None:
    with pytest.raises(ProtocolError, match="array b is missing"):
        check(reply(to_record({"w": reference["w"], "scale": reference["scale"]})), reference)


def test_odd_contents_are_rejected(reply: Callable[..., Message], reference: Weights) -> None:
    metrics = MetricRecord({"num-examples": 100})
    arrays = to_record(reference)
    contents = [
        RecordDict(),
        RecordDict({"metrics": metrics}),
        RecordDict({"arrays": arrays}),
        RecordDict({"weights": arrays, "metrics": metrics}),
        RecordDict({"arrays": arrays, "more": arrays, "metrics": metrics}),
        RecordDict({"arrays": arrays, "metrics": metrics, "more": metrics}),
        RecordDict({"arrays": ConfigRecord({"a": 1}), "metrics": metrics}),
    ]
    for content in contents:
        with pytest.raises(ProtocolError):
            check(reply(content=content), reference)


@pytest.mark.parametrize(
    "data", [b"", b"garbage", b"\x93NUMPY", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', }"]
)
def test_undecodable_bytes_are_rejected(
    data: bytes, reply: Callable[..., Message], reference: Weights
) -> None:
    arrays = to_record(reference)
    broken = ArrayRecord(
        {
            name: Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=data)
            if name == "b"
            else arrays[name]
            for name in reference
        }
    )
    with pytest.raises(ProtocolError, match="array b cannot be decoded"):
        check(reply(broken), reference)


def test_an_archive_where_an_array_belongs_is_rejected(
    reply: Callable[..., Message], reference: Weights
) -> None:
    """NumPy opens ZIP archives too, and what it returns then is not an array."""
    buffer = io.BytesIO()
    np.savez(buffer, b=reference["b"])
    arrays = to_record(reference)
    odd = ArrayRecord({name: arrays[name] for name in reference})
    odd["b"] = Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=buffer.getvalue())
    with pytest.raises(ProtocolError, match="array b cannot be decoded"):
        check(reply(odd), reference)


def test_pickled_objects_are_never_loaded(
    reply: Callable[..., Message], reference: Weights
) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([print], dtype=object), allow_pickle=True)
    arrays = to_record(reference)
    evil = ArrayRecord({name: arrays[name] for name in reference})
    evil["b"] = Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=buffer.getvalue())
    with pytest.raises(ProtocolError, match="array b cannot be decoded"):
        check(reply(evil), reference)


def test_update_norm_covers_all_arrays(reference: Weights) -> None:
    weights = {**reference, "scale": np.array(3.0, np.float32), "b": np.array([0, 4], np.float32)}
    assert update_norm(weights, reference) == pytest.approx(5.0)
