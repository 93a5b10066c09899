"""Scaling by constants."""

from __future__ import annotations

import numpy as np
import pytest

from calyx.shared.data.sources.scaling import scaled
from calyx.shared.errors import DataError


@pytest.mark.parametrize(
    ("array", "declared", "expected", "done"),
    [
        (np.array([0, 255], np.uint8), None, [0, 1], "uint8 scaled by 255, what its dtype"),
        (np.array([0, 65535], np.uint16), None, [0, 1], "uint16 scaled by 65535, what its dtype"),
        (np.array([0, 4095], np.uint16), (0, 4095), [0, 1], "uint16 scaled by 4095, the declared"),
        (np.array([-50.0, 150]), (-50, 150), [0, 1], "float64 scaled by -50 to 150, the declared"),
        (np.array([0.25, 3]), None, [0.25, 3], "float64 taken as stored"),
        (np.array([1, 9], np.int64), None, [1, 9], "int64 taken as stored"),
    ],
)
def test_values_are_scaled_by_dtype_or_declared_range(array, declared, expected, done: str) -> None:
    found = scaled(array, declared)
    assert found.values.dtype == np.float32
    assert found.values.tolist() == expected
    assert found.done.startswith(done)
    assert not found.warning


def test_twelve_bits_in_sixteen_are_warned_of() -> None:
    warning = scaled(np.array([3, 4000], np.uint16), None, "pixels").warning
    assert warning.startswith("pixels reach 4000 of the 65535") and "0,4095 for 12 bits" in warning


def test_large_floats_are_warned_of_and_small_ones_are_not() -> None:
    assert "go from -3 to 900" in scaled(np.array([-3.0, 900])).warning
    assert "go from 20 to 900" in scaled(np.array([20.0, 900])).warning
    assert not scaled(np.array([-16.0, 16])).warning


def test_a_value_outside_of_the_declared_range_names_its_record() -> None:
    with pytest.raises(
        DataError, match=r"record 1 holds 4096, outside of data\.value_range = 0,4095"
    ):
        scaled(np.array([[1, 2], [3, 4096]], np.uint16), (0, 4095))
