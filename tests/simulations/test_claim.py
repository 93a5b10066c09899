"""One process a run folder, and a run that stays the same wherever its folder goes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from calyx.audit.run import report_run
from calyx.client.ledger.ledger import Ledger
from calyx.shared.errors import ConfigError, ModelError, RunError, UsageError
from calyx.simulations import run
from calyx.simulations.claim import check_length, claimed, owned
from calyx.simulations.run_identity import FILE_NAME, RunIdentity, identity_of

SMALL = (
    "training.rounds=3",
    "federation.clients=3",
    "data.max_records=150",
    "privacy.noise=local",
    "privacy.sampling=poisson",
    "secure_aggregation.scheme=none",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; not to be changed."""
    folder = tmp_path_factory.mktemp("claim") / "a"
    run("digits-cnn", settings=SMALL, out=folder, workers=1)
    return folder


def charges(folder: Path) -> list[tuple[str, int]]:
    with Ledger.read_only(folder / "ledgers" / "client-0000.sqlite") as ledger:
        return [(entry.run, entry.round) for entry in ledger.entries()]


def as_after_round(folder: Path, number: int) -> None:
    """Take a finished run back to its checkpoint of an earlier round; the ledgers stay."""
    for path in (folder / "checkpoints").glob("*.safetensors"):
        if int(path.stem.partition("-")[2]) > number:
            path.unlink()


def test_a_renamed_folder_is_the_same_run_and_pays_for_no_round_twice(
    finished: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(finished, tmp_path / "b"))
    before = charges(moved)
    as_after_round(moved, 2)
    run(out=moved, resume=True, workers=1)
    assert charges(moved) == before and [number for _, number in before] == [1, 2, 3]
    assert (moved / "model.safetensors").read_bytes() == (
        finished / "model.safetensors"
    ).read_bytes()
    done = report_run(moved)
    assert done.report.agreement.agrees and done.report.headline.status == "guaranteed"
    assert done.report.run.name == before[0][0] == identity_of(finished).run


def test_a_folder_of_an_earlier_version_keeps_the_name_it_had(
    finished: Path, tmp_path: Path
) -> None:
    old = Path(shutil.copytree(finished, tmp_path / "b"))
    (old / FILE_NAME).unlink()
    assert identity_of(old) == RunIdentity("a", "")
    run(out=old, resume=True, workers=1)
    assert identity_of(old).run == "a"  # although the journal now names another folder


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"name": "a", "number": "7"}', b'{"name": "", "number": ""}']
)
def test_a_damaged_identity_is_refused_and_nothing_is_charged(
    finished: Path, tmp_path: Path, content: bytes
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "b"))
    (folder / FILE_NAME).write_bytes(content)
    with pytest.raises(RunError, match="restore it"):
        run(out=folder, resume=True, workers=1)
    assert charges(folder) == charges(finished)


def test_two_runs_differ_whatever_their_folders_are_called(tmp_path: Path) -> None:
    names = {RunIdentity.draw(tmp_path / "same").run for _ in range(100)}
    assert len(names) == 100
    longest = RunIdentity.draw(tmp_path / ("ä\n" * 120)).run
    assert len(longest) <= 100 and longest.isprintable()


def test_a_run_folder_that_is_in_use_is_refused(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "b"))
    journal = (folder / "metrics.jsonl").read_bytes()
    with owned(folder):
        for use in (
            lambda: run(out=folder, resume=True, workers=1),
            lambda: report_run(folder),
        ):
            with pytest.raises(UsageError, match="another calyx command writes in"):
                use()
    assert (folder / "metrics.jsonl").read_bytes() == journal
    assert not (folder / "audit").exists()


def test_a_new_folder_belongs_to_whoever_was_first(tmp_path: Path) -> None:
    with (
        claimed(tmp_path / "x", "digits") as path,
        pytest.raises(UsageError, match="another calyx command writes in"),
        claimed(tmp_path / "x", "digits"),
    ):
        pass
    (path / "config.toml").touch()
    with pytest.raises(ConfigError, match="already exists"), claimed(path, "digits"):
        pass


def test_runs_that_begin_in_the_same_second_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("calyx.simulations.claim.default_place", lambda name: Path("runs") / name)
    with claimed(None, "one") as first, claimed(None, "one") as second:
        assert (first, second) == (Path("runs/one"), Path("runs/one-2"))


def test_a_folder_of_something_else_is_not_taken_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").touch()
    for resume in (False, True):
        with pytest.raises(ConfigError, match="already exists"):
            run(settings=SMALL, out=tmp_path / "letters", resume=resume, workers=1)
    assert [p.name for p in (tmp_path / "letters").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name", ["x" * 256, "漢" * 100, "/".join(["x" * 200] * 30)])
def test_names_that_are_too_long_are_refused_before_anything_is_made(
    tmp_path: Path, name: str
) -> None:
    for resume in (False, True):
        with pytest.raises(ConfigError, match="at most .* bytes"):
            run(settings=SMALL, out=tmp_path / "new" / name, resume=resume)
    assert list(tmp_path.iterdir()) == []
    check_length(tmp_path / ("x" * 255))


def test_a_preset_with_a_long_name_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    preset = tmp_path / f"{'x' * 245}.toml"
    preset.touch()
    with pytest.raises(ConfigError, match=r"(?s)at most .* bytes .* --out"):
        run(str(preset), settings=SMALL)
    assert list(tmp_path.iterdir()) == [preset]


def test_a_model_that_cannot_be_trained_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "normed_net.py").write_text(
        "from torch import nn\ndef make(shape, classes):\n    return nn.Sequential("
        "nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModelError, match="BatchNorm1d"):
        run(settings=[*SMALL, "model.name=normed_net:make"], out=tmp_path / "x", workers=1)
    assert not (tmp_path / "x").exists()


LONG = ("training.rounds=400", "federation.clients=3", "data.max_records=150")
LONG += ("secure_aggregation.min_contributors=2",)


def started(out: Path, keys: Path) -> subprocess.Popen[str]:
    """A sealed run in a process of its own, in its first rounds."""
    flags = [word for setting in LONG for word in ("--set", setting)]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "calyx.cli.main", "simulate", "--out", str(out), *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(keys)},
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and not (out / "ledgers" / "client-0000.sqlite").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.slow
def test_a_second_run_in_the_folder_is_refused_and_no_key_outlives_the_first(
    tmp_path: Path,
) -> None:
    keys, out = tmp_path / "keys", tmp_path / "x"
    keys.mkdir()
    first = started(out, keys)
    try:
        assert list(keys.rglob("*.key"))
        second = [
            sys.executable,
            "-P",
            "-m",
            "calyx.cli.main",
            "simulate",
            "--resume",
            "--out",
            str(out),
        ]
        done = subprocess.run(second, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        error, hint = done.stderr.splitlines()
        assert error.startswith("error: another calyx command")
        assert hint == "hint: wait until it has ended"
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 130
        assert list(keys.iterdir()) == []
    finally:
        first.kill()
        first.communicate()
    number = json.loads((out / FILE_NAME).read_text())["number"]
    assert {name for name, _ in charges(out)} == {f"x-{number}"}


@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "folder"])
def test_lock_that_is_no_file_is_neither_followed_nor_written(tmp_path: Path, kind: str) -> None:
    """Of a folder from someone else: what a link led to would be emptied."""
    folder, mine = tmp_path / "theirs", tmp_path / "mine"
    folder.mkdir()
    lock = folder / ".lock"
    if kind == "link":
        mine.write_text("precious")
    if kind == "fifo":
        os.mkfifo(lock)
    elif kind == "folder":
        lock.mkdir()
    else:
        lock.symlink_to(mine)
    with pytest.raises(UsageError, match=r"\.lock is a link or not a regular file"), owned(folder):
        pass
    assert not mine.exists() if kind != "link" else mine.read_text() == "precious"
