from __future__ import annotations

import numpy as np
import pytest

from calyx.shared.data import Dataset
from calyx.shared.data.view import as_view
from calyx.shared.errors import DataError


def records(*shape: int) -> Dataset:
    features = np.arange(2 * np.prod(shape), dtype=np.float32).reshape(2, *shape)
    return Dataset(features, np.array([0, 1]), 2)


@pytest.mark.parametrize(
    ("stored", "image", "sequence"),
    [
        ((5, 4), (1, 5, 4), (5, 4)),
        ((1, 5, 4), (1, 5, 4), (5, 4)),
        ((3, 5, 4), (3, 5, 4), (5, 12)),
        ((5, 4, 3), (3, 5, 4), (5, 12)),
        ((5, 4, 1), (1, 5, 4), (5, 4)),
        ((2, 5, 4), (2, 5, 4), (5, 8)),
        ((18, 20, 16), (16, 18, 20), (18, 320)),
    ],
)
def test_shapes_of_both_views(
    stored: tuple[int, ...], image: tuple[int, ...], sequence: tuple[int, ...]
) -> None:
    assert as_view(records(*stored), "image").input_shape == image
    assert as_view(records(*stored), "sequence").input_shape == sequence


def test_single_numbers_become_a_sequence_of_one_number_a_step() -> None:
    data = as_view(records(7), "sequence")
    assert data.input_shape == (7, 1)
    assert data.features[1, :, 0].tolist() == list(range(7, 14))


def test_single_numbers_are_no_image() -> None:
    with pytest.raises(DataError, match=r"set data\.view=sequence"):
        as_view(records(7), "image")


def test_rows_are_the_steps() -> None:
    data = records(5, 4)
    assert np.array_equal(as_view(data, "sequence").features, data.features)
    colour = records(3, 5, 4)
    step = as_view(colour, "sequence").features[1, 2]
    assert np.array_equal(step, colour.features[1, :, 2, :].reshape(12))


def test_channels_last_are_moved_not_reshaped() -> None:
    data = records(5, 4, 3)
    assert np.array_equal(as_view(data, "image").features[1, 2], data.features[1, :, :, 2])


@pytest.mark.parametrize("view", ["image", "sequence"])
@pytest.mark.parametrize("shape", [(17, 20, 18), (2, 3, 4, 5)])
def test_other_shapes_are_refused(shape: tuple[int, ...], view: str) -> None:
    with pytest.raises(DataError, match="a record has shape"):
        as_view(records(*shape), view)  # type: ignore[arg-type]
