from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calyx.shared.config.schema import DataConfig
from calyx.shared.data import Dataset, load_folder, load_split
from calyx.shared.data.holdout import hold_out, hold_out_together
from calyx.shared.errors import DataError


def test_digits_are_held_out_evenly_from_all_classes() -> None:
    split = load_split(DataConfig(), 0)
    assert (len(split.train), len(split.test)) == (1438, 359)
    assert split.train.input_shape == (1, 8, 8)
    assert (split.train.features.min(), split.train.features.max()) == (0, 1)
    both = np.bincount(split.train.labels) + np.bincount(split.test.labels)
    assert np.abs(np.bincount(split.test.labels) - both * 0.2).max() < 1


def test_digits_as_sequences_have_eight_steps_of_eight() -> None:
    images = load_split(DataConfig(), 3).train
    rows = load_split(DataConfig(view="sequence"), 3).train
    assert rows.features.shape == (1438, 8, 8)
    assert np.array_equal(rows.features, images.features[:, 0])


def test_the_seed_decides_what_is_held_out() -> None:
    first, again, other = (load_split(DataConfig(), seed) for seed in (1, 1, 2))
    assert first.test.fingerprint == again.test.fingerprint
    assert first.train.fingerprint == again.train.fingerprint
    assert first.test.fingerprint != other.test.fingerprint


def test_no_record_is_both_trained_and_tested_on() -> None:
    data = numbered([30, 5, 9, 1])
    split = hold_out(data, 0.3, 0)
    together = np.concatenate([split.train.features, split.test.features]).ravel()
    assert np.array_equal(np.sort(together), np.arange(45))


@pytest.mark.parametrize("fraction", [0.03, 0.2, 0.5, 0.99])
def test_every_class_is_still_trained_on(fraction: float) -> None:
    split = hold_out(numbered([30, 5, 9, 1]), fraction, 0)
    assert set(split.train.labels) == {0, 1, 2, 3}


def test_a_set_too_small_to_hold_anything_out_is_refused() -> None:
    with pytest.raises(DataError, match="too few to hold out"):
        hold_out(numbered([1, 1]), 0.2, 0)


def test_max_records_and_test_fraction_apply_to_digits() -> None:
    split = load_split(DataConfig(max_records=100, test_fraction=0.5), 0)
    assert len(split.train) == 100
    assert len(split.test) == 898


def test_max_records_of_a_set_sorted_by_class_keeps_all_classes(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(10), 100)
    np.savez(
        tmp_path / "set.npz",
        x=np.zeros((1000, 2, 2)),
        y=labels,
        x_test=np.zeros((2, 2, 2)),
        y_test=labels[:2],
    )
    config = DataConfig(source="npz", directory=str(tmp_path), max_records=200)
    assert set(load_split(config, 0).train.labels) == set(range(10))


def test_classes_that_are_left_without_training_records_are_warned_of(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(10), 10)
    np.savez(tmp_path / "set.npz", x=np.zeros((100, 2, 2)), y=labels)
    config = DataConfig(source="npz", directory=str(tmp_path), max_records=4)
    (warning,) = load_split(config, 0).warnings
    assert "of 10 classes have no training records any more" in warning


def test_whole_groups_are_held_out_as_near_to_the_share_as_it_gets() -> None:
    dataset = numbered([50, 50])
    groups = np.repeat(["a", "b", "c", "d", "e"], 20)
    for seed in range(10):
        split = hold_out_together(dataset, groups, 0.25, seed)
        assert len(split.test) == 20
        held = set(groups[split.test.features[:, 0].astype(int)])
        assert len(held) == 1 and held.isdisjoint(groups[split.train.features[:, 0].astype(int)])
    chosen = {hold_out_together(dataset, groups, 0.25, seed).test.fingerprint for seed in range(20)}
    assert len(chosen) > 1
    with pytest.raises(DataError, match="all 100 records are of x"):
        hold_out_together(dataset, np.repeat(["x"], 100), 0.25, 0)


def test_max_records_above_the_number_of_records_keeps_all() -> None:
    assert len(load_split(DataConfig(max_records=5000), 0).train) == 1438


def test_a_device_that_tries_out_digits_has_all_of_them() -> None:
    assert len(load_folder(DataConfig())) == 1797


def numbered(counts: list[int]) -> Dataset:
    """Record i is the number i; `counts` records of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return Dataset(np.arange(len(labels), dtype=np.float32)[:, None], labels, len(counts))
