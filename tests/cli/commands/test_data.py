"""``calyx data inspect``, and that the line it prints trains."""

from __future__ import annotations

import io
import json
import math
import shlex
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RNG = np.random.default_rng(0)
SHORT = ("--set", "training.rounds=1", "--no-report", "--workers", "1")


def wav(hertz: float, rate: int = 8000) -> bytes:
    samples = (0.3 * 32767 * np.sin(2 * np.pi * hertz * np.arange(rate // 4) / rate)).astype("<i2")
    head = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)
    data = samples.tobytes()
    body = (
        b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", len(data)) + data
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def table(folder: Path) -> Path:
    rows = [f"{i},{i % 5},{'red' if i % 3 else 'blue'},c{i % 4},{i % 2}" for i in range(120)]
    (folder / "set.csv").write_text("\n".join(["id,a,colour,client_id,label", *rows]))
    return folder / "set.csv"


def pictures(folder: Path) -> Path:
    image = pytest.importorskip("PIL.Image")
    for number in range(90):
        place = folder / "set" / ("cat" if number % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        pixels = RNG.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        image.fromarray(pixels).save(place / f"{number}.png")
    return folder / "set"


def recordings(folder: Path) -> Path:
    with tarfile.open(folder / "set.tar.xz", "w:xz") as archive:
        for number in range(80):
            content = wav(300 + 500 * (number % 2))
            member = tarfile.TarInfo(f"{number % 2}_{'abcd'[number % 4]}_{number}.wav")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return folder / "set.tar.xz"


def logs(folder: Path) -> Path:
    for subject in range(8):
        place = folder / "set" / f"s{subject}"
        place.mkdir(parents=True)
        rows = [f"{i},{math.sin(i)},{'walk' if i % 1000 >= 500 else 'sit'}" for i in range(2000)]
        (place / "one_log.csv").write_text("\n".join(["timestamp,x,activity", *rows]))
    return folder / "set"


def archive(folder: Path) -> Path:
    x = RNG.integers(0, 255, (100, 8, 8), dtype=np.uint8)
    np.savez(folder / "set.npz", x=x, y=np.arange(100) % 4, client_id=np.arange(100) % 5)
    return folder / "set.npz"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "records", "clients"),
    [(table, 120, 4), (pictures, 90, 0), (recordings, 80, 4), (logs, 120, 8), (archive, 100, 5)],
)
def test_the_line_that_it_prints_trains(
    calyx: Callable[..., Any],
    tmp_path: Path,
    make: Callable[[Path], Path],
    records: int,
    clients: int,
) -> None:
    looked = calyx("data", "inspect", str(make(tmp_path)), "--json")
    assert looked.code == 0, looked.err
    found = json.loads(looked.out)
    assert found["records"] == records and len(found["clients"]) == clients
    words = shlex.split(found["command"])
    assert words[:2] == ["calyx", "simulate"] and found["command"] in looked.err
    trained = calyx(*words[1:], *SHORT, "--out", str(tmp_path / "run"))
    assert trained.code == 0, trained.err
    assert "test accuracy" in trained.out


def test_it_shows_classes_clients_and_what_looks_wrong(calyx, tmp_path: Path) -> None:
    head, *rows = table(tmp_path).read_text().splitlines()
    rows = [row.replace(",0,red", ",900,red") for row in rows]
    (tmp_path / "set.csv").write_text("\n".join([head, *rows, rows[0].replace("0,", "500,", 1)]))
    done = calyx("data", "inspect", str(tmp_path / "set.csv"))
    assert done.code == 0, done.err
    different = {(a, colour, label) for _, a, colour, _, label in (row.split(",") for row in rows)}
    for line in (
        "kind      table, one class a record",
        "records   121",
        "clients   4 clients",
        "0             61  ██████████████████████████████",
        "data.record_id = id",
        "columns look unscaled: a (0 to 900)",
        f"copies of other records: {121 - len(different)};",
        "of 4 clients have no record of some class (c0 lacks 1)",
    ):
        assert line in done.out
    # What would tell of the records, once it is in a configuration, is left to the owner.
    assert "data.bounds" not in done.out.split("to train on it:")[1]


def test_the_line_for_quantities_and_text_names_their_task(calyx, tmp_path: Path) -> None:
    rows = [f"{i},{i * 0.37}" for i in range(50)]
    (tmp_path / "real.csv").write_text("\n".join(["a,target", *rows]))
    speech = "What is it that I hear, and who goes there at this hour of the night?\n" * 9
    roles = "\n".join(f"{name}:\n{speech}" for name in ("ANNA", "BERT", "CARL", "DORA", "EMIL"))
    (tmp_path / "play.txt").write_text(roles)
    for name, kind, line in (
        ("real.csv", "a number a record", "calyx simulate table-mlp"),
        ("play.txt", "predicts itself", "calyx simulate shakespeare-lstm"),
    ):
        done = calyx("data", "inspect", str(tmp_path / name))
        assert done.code == 0, done.err
        assert kind in done.out and line in done.out
        assert ("--set task.kind=regression" in done.out) == (name == "real.csv")


def test_missing_cells_give_the_setting_that_reads_them(calyx, tmp_path: Path) -> None:
    text = table(tmp_path).read_text().replace("3,3,", "3,,", 1)
    (tmp_path / "set.csv").write_text(text)
    done = calyx("data", "inspect", str(tmp_path / "set.csv"), "--json")
    assert json.loads(done.out)["settings"]["data.missing"] == "indicator"
    refused = calyx("data", "inspect", str(tmp_path / "set.csv"), "--set", "data.missing=refuse")
    assert refused.code == 2 and "set.csv, line 5: a is empty or NaN" in refused.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "nowhere: no such file or folder"),
        (("empty",), "holds nothing that can be read\nhint: give CSV, Parquet, PNG"),
        (("set.csv", "--set", "privacy.epsilon=1"), "only settings of data"),
        (("set.csv", "--set", "data.colum=a"), "data.colum"),
        (("set.csv", "--set", "data.label=sort"), "there is no column sort"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_exit_code_two(
    calyx, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    table(tmp_path)
    (tmp_path / "empty").mkdir()
    place, *more = arguments
    done = calyx("data", "inspect", str(tmp_path / place), *more)
    assert done.code == 2 and message in done.err
    assert not (tmp_path / "runs").exists()


def test_its_help_says_where_it_runs_and_that_counts_are_exact(calyx) -> None:
    done = calyx("data", "inspect", "--help")
    text = " ".join(done.out.split())
    assert "runs on your machine, sends nothing" in text and "counts it prints are exact" in text
