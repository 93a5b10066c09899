"""Tables of CSV and Parquet files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calyx.shared.config.schema import DataConfig, TaskConfig
from calyx.shared.data import load_folder, load_split, partition
from calyx.shared.data.sources.table import read_table
from calyx.shared.errors import DataError
from calyx.shared.target import MultiLabel

CSV = """age,colour,who,kind
30,red,anna,ill
40.5,blue,anna,well
50,red,bert,ill
60,red,bert,well
"""


def config(place: Path, **more: object) -> DataConfig:
    given = {"source": "table", "label": "kind", "natural_id": "who", "view": "sequence"}
    return DataConfig.model_validate({"directory": str(place), **given, **more})


def test_a_table_of_numbers_and_words(write: Callable[..., Path]) -> None:
    found = read_table(config(write("set.csv", CSV), bounds="age=0:100"))
    assert np.allclose(found.features, [[-0.4, 0, 1], [-0.19, 1, 0], [0, 0, 1], [0.2, 0, 1]])
    assert found.features.dtype == np.float32
    assert found.labels.tolist() == [0, 1, 0, 1] and found.class_names == ("ill", "well")
    assert found.natural_ids.tolist() == ["anna", "anna", "bert", "bert"]
    assert found.done[0] == "age mapped from data.bounds to -1 to 1"
    assert found.done[1] == "colour as 2 columns of 0 and 1 (those that occur)"
    assert found.warnings == ()


def test_without_bounds_values_stay_and_unscaled_columns_are_named(write) -> None:
    found = read_table(config(write("set.csv", CSV), columns="age"))
    assert found.features[:, 0].tolist() == [30, 40.5, 50, 60]
    assert found.done[0] == "age taken as stored"
    assert found.warnings[0].startswith("columns look unscaled: age (30 to 60); set data.bounds")


def test_scaling_does_not_depend_on_the_records(write) -> None:
    stated = {"bounds": "*=0:100", "categories": "colour=red|blue|green", "classes": "ill,well"}
    whole = read_table(config(write("all.csv", CSV), **stated))
    head, *rows = CSV.splitlines()
    part = read_table(config(write("part.csv", "\n".join([head, *rows[2:]])), **stated))
    assert np.array_equal(part.features, whole.features[2:])
    assert part.labels.tolist() == whole.labels[2:].tolist()


def test_what_is_beyond_the_bounds_is_cut_off_and_counted(write) -> None:
    found = read_table(config(write("set.csv", CSV), bounds="age=35:55", columns="age"))
    assert found.features[:, 0].tolist() == pytest.approx([-1, -0.45, 0.5, 1])
    assert "2 values beyond them cut off" in found.done[0]


def test_missing_cells_are_refused_or_marked_in_columns_that_are_always_there(write) -> None:
    place = write("set.csv", CSV.replace("50,red", "NA,"))
    with pytest.raises(DataError, match=r"set\.csv, line 4: age is empty or NaN .* 1 of 4 cells"):
        read_table(config(place))
    found = read_table(config(place, missing="indicator", bounds="age=0:100"))
    assert found.features[2].tolist() == [0, 1, 0, 0, 1]
    whole = read_table(config(write("whole.csv", CSV), missing="indicator"))
    assert whole.features.shape == found.features.shape


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        ("", {}, r"set\.csv is empty"),
        ("age,kind\n", {}, r"set\.csv has column names but no records"),
        (
            CSV,
            {"label": "sort"},
            r"there is no column sort; the columns are age, colour, who, kind",
        ),
        (CSV + "1,red\n", {}, r"set\.csv, line 6: 2 cells, but 4 columns"),
        ("age,age,kind\n1,2,a\n", {}, r"two columns are named age"),
        ("age,,kind\n1,2,a\n", {}, r"column 2 has no name"),
        ("1,2,3\n4,5,6\n", {"label": "3"}, r"line 1 holds numbers where the names"),
        (CSV.replace("40.5,blue", "forty,blue"), {"bounds": "age=0:9"}, r"line 3: age = 'forty'"),
        (
            CSV.replace(",", ";").replace("40.5", "40,5"),
            {},
            r"line 3: age = '40,5'.*\nhint: write decimal points",
        ),
        (CSV.replace("well", ""), {}, r"set\.csv, line 3: kind is empty"),
        (CSV.replace("50,red", "inf,red"), {}, r"set\.csv, line 4: age is infinite"),
        (
            CSV.replace("60,red,bert,well", "60,red,bert,wel"),
            {},
            r"line 5|line 3: kind 'wel+' occurs",
        ),
        (CSV, {"record_id": "who"}, r"line 3: who 'anna' is also in .*set\.csv, line 2"),
        (CSV, {"bounds": "weight=0:1"}, r"data\.bounds names weight"),
        (CSV, {"columns": "age,kind"}, r"data\.columns holds the label kind"),
        (CSV, {"categories": "colour=red|green"}, r"line 3: colour = 'blue' is not among"),
        (CSV, {"partition": "natural", "natural_id": "site"}, r"there is no site"),
        (CSV.encode() + b"9,r\xe9d,x,ill\n", {}, r"set\.csv, line 6: byte 0xe9 is not utf-8"),
        (CSV.encode("utf-16"), {}, r"set\.csv is UTF-16 text\nhint: set data\.encoding=utf-16"),
        (
            CSV + '1,"red,anna,ill\n' + "x" * 10,
            {},
            r"set\.csv, line 6: .*\nhint: correct the quotes",
        ),
        (CSV + "1," + "r" * 200_000 + ",anna,ill\n", {}, r"set\.csv, line 6: field larger"),
        (CSV + "1,re\0d,anna,ill\n", {}, r"set\.csv, line 6: a NUL character"),
    ],
)
def test_bad_tables_are_refused_by_file_and_line(write, content, more, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_table(config(write("set.csv", content), **more))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (b"\xef\xbb\xbf" + CSV.encode(), "utf-8"),
        (CSV.replace("\n", "\r\n").encode(), "utf-8"),
        (CSV.replace(",", ";").encode(), "utf-8"),
        (CSV.replace(",", "\t").encode(), "utf-8"),
        (CSV.replace("red", "r\xe9d").encode("latin-1"), "latin-1"),
        (CSV.encode("utf-16"), "utf-16"),
        (CSV.replace("red", '"red"').encode(), "utf-8"),
    ],
)
def test_dialects_and_encodings_give_the_same_table(write, content: bytes, encoding: str) -> None:
    expected = read_table(config(write("plain.csv", CSV)))
    found = read_table(config(write("set.csv", content), encoding=encoding))
    assert np.array_equal(found.features, expected.features)


def test_a_column_that_turns_out_to_hold_words_late_is_read_as_it_was_written(write) -> None:
    rows = "".join(f"{i % 7},{'007' if i < 4497 else 'x1'},{'ab'[i % 2]}\n" for i in range(9000))
    head = "n,code,kind\n" + rows + "1,x1,a\n"
    found = read_table(config(write("set.csv", head)))
    assert "code as 2 columns" in found.done[1]


def test_a_folder_with_a_test_file_has_its_own_test_set(write, tmp_path: Path) -> None:
    write("both/train-1.csv", CSV)
    write("both/train-2.csv", CSV)
    write("both/test.csv", CSV)
    split = load_split(config(tmp_path / "both", view="stored"), 0)
    assert (len(split.train), len(split.test)) == (8, 4)
    assert split.train.input_shape == (3,)
    parts = partition(split.train, config(tmp_path / "both", partition="natural"), 2, 0)
    assert sorted(map(len, parts)) == [4, 4]
    write("both/train-3.csv", CSV.replace("age", "years"))
    with pytest.raises(DataError, match=r"train-3\.csv has other columns than .*test\.csv"):
        load_split(config(tmp_path / "both"), 0)


def test_a_device_must_be_told_classes_and_categories(write) -> None:
    place = write("set.csv", CSV)
    with pytest.raises(
        DataError, match=r"set\.csv: a device may lack a class .*\nhint: .*data\.classes"
    ):
        load_folder(config(place))
    with pytest.raises(
        DataError, match=r"colour holds words, .*\nhint: .*data\.categories=colour="
    ):
        load_folder(config(place, classes="ill,well,better"))
    stated = config(place, classes="ill,well,better", categories="colour=red|blue|green")
    assert load_folder(stated).classes == 3


def test_parquet_gives_what_csv_gives(write, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import csv, parquet

    table = csv.read_csv(write("set.csv", CSV))
    parquet.write_table(table, tmp_path / "set.parquet")
    expected = read_table(config(tmp_path / "set.csv"))
    found = read_table(config(tmp_path / "set.parquet"))
    assert np.array_equal(found.features, expected.features)
    assert found.labels.tolist() == expected.labels.tolist()
    parquet.write_table(pyarrow.table({"kind": ["a"], "at": [[1, 2]]}), tmp_path / "odd.parquet")
    with pytest.raises(DataError, match=r"odd\.parquet: column at holds list"):
        read_table(config(tmp_path / "odd.parquet"))
    write("cut.parquet", (tmp_path / "set.parquet").read_bytes()[:-30])
    with pytest.raises(DataError, match=r"cut\.parquet is damaged or not a Parquet file"):
        read_table(config(tmp_path / "cut.parquet"))


def test_labels_may_be_real_or_several(write) -> None:
    place = write("set.csv", "x,y,a,b\n1,2.5,0,1\n2,-3,1,1\n")
    real = read_table(config(place, label="y"), "real")
    assert real.labels.dtype == np.float32 and real.labels.tolist() == [2.5, -3]
    several = read_table(config(place, label="a,b"), "several")
    assert several.labels.tolist() == [[0, 1], [1, 1]] and several.class_names == ("a", "b")
    assert several.learned(TaskConfig()).train.spec.target == MultiLabel(2, ("a", "b"))
    with pytest.raises(DataError, match=r"names 2 columns.*\nhint: .*task\.kind=multilabel"):
        read_table(config(place, label="a,b"))
    with pytest.raises(DataError, match=r"line 2: y = 2\.5, but of several labels"):
        read_table(config(place, label="a,y"), "several")
