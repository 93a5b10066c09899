"""Sensor logs, cut into windows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calyx.shared.config.schema import DataConfig
from calyx.shared.data import load_split
from calyx.shared.data.sources.orientation import along_gravity, check_axes
from calyx.shared.data.sources.sensors import read_sensors
from calyx.shared.errors import DataError

PATTERN = "{client}/*_log.csv"


def log(rows: int, *, start: int = 0, walks_from: int = 10) -> bytes:
    lines = [f"{start + i},{-i},{'walk' if i >= walks_from else 'sit'}" for i in range(rows)]
    return "\n".join(["x,y,activity", *lines]).encode()


LOGS = {
    f"DATA/s{subject}/s{subject}_{run}_log.csv": log(23, start=1000 * subject + 100 * run)
    for subject in range(1, 5)
    for run in range(2)
}


def config(place: Path, **more: object) -> DataConfig:
    given = {
        "source": "sensors",
        "view": "sequence",
        "label": "activity",
        "name_pattern": PATTERN,
        "window": 5,
    }
    return DataConfig.model_validate({**given, "directory": str(place), **more})


def test_a_recording_is_cut_into_windows_without_overlap(pack: Callable[..., Path]) -> None:
    found = read_sensors(config(pack("set.tar.xz", {**LOGS, "DATA/subjects.csv": b"id\ns1"})))
    assert found.features.shape == (8 * 4, 5, 2)
    assert found.features[0, :, 0].tolist() == [1000, 1001, 1002, 1003, 1004]
    assert found.features[1, :, 1].tolist() == [-5, -6, -7, -8, -9]
    assert found.labels[:4].tolist() == [0, 0, 1, 1] and found.class_names == ("sit", "walk")
    assert found.natural_ids[:4].tolist() == ["s1"] * 4
    assert found.done[0] == (
        "32 windows of 5 rows, which do not overlap; 24 of 184 rows at the ends are left out"
    )
    assert "DATA/subjects.csv" in found.warnings[0]


def test_the_label_of_a_window_is_that_of_most_of_its_rows(pack) -> None:
    for walks_from, label in ((7, 1), (8, 0)):
        logs = {name: log(10, walks_from=walks_from) for name in LOGS}
        found = read_sensors(config(pack("set.tar", logs), classes="sit,walk"))
        assert found.labels[1] == label
        assert "8 windows of several labels have the most frequent one" in found.done


def test_overlapping_windows_are_warned_of(pack) -> None:
    found = read_sensors(config(pack("set.tar", LOGS), window_step=2))
    assert found.features.shape[0] == 8 * 10
    assert found.features[1, 0, 0] == 1002
    assert any("one row is in several records" in warning for warning in found.warnings)


@pytest.mark.parametrize("hold_out", ["auto", "client", "file"])
def test_windows_of_one_recording_are_never_on_both_sides(pack, hold_out: str) -> None:
    place = pack("set.tar", LOGS)
    for seed in range(5):
        split = load_split(config(place, hold_out=hold_out, test_fraction=0.3), seed)
        train, test = (
            {int(value) // 100 for value in part.features[:, :, 0].ravel()}
            for part in (split.train, split.test)
        )
        assert train and test and not train & test
        if hold_out != "file":
            assert not set(split.train.natural_ids) & set(split.test.natural_ids)


def test_single_windows_are_not_held_out(pack) -> None:
    place = pack("set.tar", LOGS)
    with pytest.raises(DataError, match=r"data\.hold_out = record would put windows of one"):
        load_split(config(place, hold_out="record"), 0)
    with pytest.raises(
        DataError, match=r"all 4 records are of .*s1_0_log\.csv, which would be on both"
    ):
        one = pack("one.tar", {"s1/s1_0_log.csv": log(23)})
        load_split(config(one, hold_out="file"), 0)


def test_bounds_map_to_minus_one_to_one(pack) -> None:
    found = read_sensors(config(pack("set.tar", LOGS), bounds="x=0:10000,y=-20:20"))
    assert np.allclose(found.features[0, :2], [[-0.8, 0], [-0.7998, -0.05]])
    assert found.done[1].endswith("to -1 to 1, 16 values beyond them cut off")


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        (b"", {}, r"s1_9_log\.csv is empty"),
        (b"x,activity\n1,sit\n", {}, r"s1_9_log\.csv: there is no column y, which .* has"),
        (b"x,y\n1,2\n", {}, r"s1_9_log\.csv: there is no column activity"),
        (b"x,y,activity\n1,,sit\n", {}, r"s1_9_log\.csv, line 2: y is empty or NaN"),
        (b"x,y,activity\n1,a,sit\n", {}, r"s1_9_log\.csv, line 2: y = 'a' is not a number"),
        (b"x,y,activity\n1,2,\n", {}, r"s1_9_log\.csv, line 2: activity is empty"),
        (log(23), {"window": 99}, r"no recording has 99 rows"),
        (log(23), {"bounds": "z=0:1"}, r"data\.bounds names z"),
        (log(23), {"columns": "x,activity"}, r"data\.columns holds the label"),
    ],
)
def test_bad_logs_are_refused_by_file_and_line(pack, content, more, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_sensors(config(pack("set.tar", {**LOGS, "DATA/s1/s1_9_log.csv": content}), **more))


def test_recordings_shorter_than_a_window_are_named(pack) -> None:
    found = read_sensors(config(pack("set.tar", {**LOGS, "DATA/s1/s1_9_log.csv": log(3)})))
    assert any("s1_9_log.csv" in warning for warning in found.warnings)


def test_the_phone_recordings_with_subjects_held_out() -> None:
    root = Path(os.environ.get("CALYX_TEST_DATA", ""))
    place = root / "sp-sw-har-phone" / "sp-sw-har-phone.tar.xz"
    if not place.is_file():
        pytest.skip("the phone recordings are not there: set CALYX_TEST_DATA to their folder")
    columns = "x_acc,y_acc,z_acc,x_gyro,y_gyro,z_gyro"
    settings = {"label": "label", "name_pattern": "{client}/*_sp.csv", "columns": columns}
    split = load_split(config(place, **settings, window=128), 0)
    assert split.train.input_shape == (128, 6)
    assert len(split.train) + len(split.test) == 1912
    assert len(set(split.train.natural_ids)) + len(set(split.test.natural_ids)) == 23
    assert np.bincount(split.test.labels, minlength=5).min() > 0


def test_motion_along_gravity_does_not_depend_on_how_a_device_was_worn() -> None:
    rng = np.random.default_rng(0)
    windows = rng.normal(size=(4, 50, 6)).astype(np.float32)
    windows[:, :, 2] += 9.8
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turned = (windows.reshape(4, 50, 2, 3) @ turn).reshape(4, 50, 6).astype(np.float32)
    assert np.allclose(along_gravity(windows), along_gravity(turned), atol=1e-4)
    assert along_gravity(windows).shape == (4, 50, 4)
    assert along_gravity(windows)[:, :, 0].mean() == pytest.approx(9.8, abs=0.5)


def test_a_window_without_acceleration_has_finite_values() -> None:
    assert np.isfinite(along_gravity(np.zeros((1, 5, 3), np.float32))).all()


@pytest.mark.parametrize(
    ("columns", "bounds", "told"),
    [
        (["x", "y"], {}, "x, y, z of each sensor"),
        (["x", "y", "z"], {"x": (-1.0, 1.0)}, "scales them differently"),
        (["x", "y", "z"], {"*": (0.0, 1.0)}, "scales them differently"),
    ],
)
def test_axes_that_cannot_be_turned_into_each_other_are_refused(
    columns: list[str], bounds: dict[str, tuple[float, float]], told: str
) -> None:
    with pytest.raises(DataError, match=told):
        check_axes(columns, bounds)
