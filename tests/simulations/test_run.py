"""Whole runs: same seed, same model, whatever the workers, crashes and restarts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from calyx.client.ledger.ledger import Ledger
from calyx.shared.config.load import build, from_toml
from calyx.shared.errors import ConfigError
from calyx.simulations import run

SMALL = (
    "training.rounds=3",
    "federation.clients=4",
    "data.max_records=400",
    "privacy.noise=local",
    "privacy.sampling=poisson",
    "privacy.epsilon=8",
    "secure_aggregation.scheme=none",
)
PLAIN = (*SMALL, "privacy.noise=none")


def model_bytes(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [e for e in map(json.loads, lines) if e["event"] == kind]


@pytest.fixture(scope="module")
def private_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "private"
    run(settings=SMALL, out=folder, workers=1)
    return folder


def test_any_number_of_workers_gives_the_same_bytes(private_run: Path, tmp_path: Path) -> None:
    run(settings=SMALL, out=tmp_path / "two", workers=2)
    assert model_bytes(tmp_path / "two") == model_bytes(private_run)


def test_another_seed_gives_another_model(private_run: Path, tmp_path: Path) -> None:
    run(settings=SMALL, seed=1, out=tmp_path / "other", workers=1)
    assert model_bytes(tmp_path / "other") != model_bytes(private_run)


def test_run_folder_holds_what_is_needed_to_repeat_the_run(private_run: Path) -> None:
    names = {path.name for path in private_run.iterdir()}
    assert names == {
        ".lock",
        "run.json",
        "config.toml",
        "environment.json",
        "partition.npz",
        "ledgers",
        "batches",
        "checkpoints",
        "metrics.jsonl",
        "tensorboard",
        "model.safetensors",
    }
    config = build(from_toml((private_run / "config.toml").read_text()))
    assert config.training.rounds == 3 and config.federation.clients == 4
    environment = json.loads((private_run / "environment.json").read_text())
    assert environment["packages"]["torch"].startswith("2.13")
    assert [e["round"] for e in events(private_run, "round")] == [1, 2, 3]


def test_reported_epsilon_is_what_the_ledgers_say(private_run: Path) -> None:
    (end,) = events(private_run, "end")
    spent = []
    for path in sorted((private_run / "ledgers").glob("*.sqlite")):
        with Ledger.read_only(path) as ledger:
            assert len(ledger.entries()) == 3
            spent.append(ledger.spent(end["delta"], "record").epsilon)
    assert len(spent) == 4
    assert end["epsilon_max"] == pytest.approx(max(spent))
    assert 0.97 * 8 < end["epsilon_max"] <= 8
    assert events(private_run, "round")[-1]["epsilon_max"] == pytest.approx(max(spent))


def test_private_clients_send_no_metrics(private_run: Path) -> None:
    assert all(event["clients"] == {} for event in events(private_run, "round"))


def test_result_has_exactly_the_documented_keys(private_run: Path) -> None:
    (end,) = events(private_run, "end")
    keys = (
        "event accuracy metrics loss epsilon_max delta noise_multiplier rounds clients rejected "
        "rounds_with_effect seconds seconds_per_round run_dir"
    )
    assert list(end) == keys.split()


def test_without_noise_the_result_says_no_differential_privacy(tmp_path: Path) -> None:
    result = run(settings=PLAIN, out=tmp_path / "plain", workers=1)
    assert result.epsilon_max is None and result.noise_multiplier == 0
    (start,) = events(tmp_path / "plain", "start")
    assert start["noise"] == "none" and start["epsilon_target"] is None
    with Ledger.read_only(tmp_path / "plain" / "ledgers" / "client-0000.sqlite") as ledger:
        assert ledger.spent(1e-4, "record").epsilon == float("inf")


def test_every_event_reaches_the_watcher_in_order(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    run(settings=PLAIN, out=tmp_path / "watched", workers=1, on_event=seen.append)
    kinds = [event["event"] for event in seen]
    assert kinds[0] == "start" and kinds[-1] == "end"
    assert [e["round"] for e in seen if e["event"] == "round"] == [1, 2, 3]
    assert kinds.count("reply") == 12


def test_an_existing_folder_is_never_overwritten(private_run: Path) -> None:
    before = model_bytes(private_run)
    with pytest.raises(ConfigError, match="(?s)already exists.*--resume"):
        run(settings=SMALL, out=private_run)
    assert model_bytes(private_run) == before


def test_resuming_with_other_settings_is_refused(private_run: Path) -> None:
    with pytest.raises(ConfigError, match="training.rounds = 5: the run was started with 3"):
        run("digits-cnn", settings=SMALL, rounds=5, out=private_run, resume=True)


def test_resuming_a_finished_run_changes_nothing(private_run: Path) -> None:
    before = model_bytes(private_run)
    result = run(out=private_run, resume=True, workers=1)
    assert model_bytes(private_run) == before and result.rounds == 3
    with Ledger.read_only(private_run / "ledgers" / "client-0001.sqlite") as ledger:
        assert len(ledger.entries()) == 3


KILL_WHEN = {
    "in the first round": lambda folder: any((folder / "ledgers").glob("*.sqlite")),
    "between rounds": lambda folder: any((folder / "checkpoints").glob("*.safetensors")),
    "while the folder is made": lambda folder: folder.exists(),
    "in a later round": lambda folder: (
        any((folder / "checkpoints").glob("round-000002*"))
        and len(list((folder / "ledgers").glob("*.sqlite"))) == 4
    ),
}


@pytest.mark.parametrize("moment", KILL_WHEN)
def test_killed_run_resumes_to_the_same_model_and_spends_nothing_twice(
    moment: str, private_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    script = f"from calyx import run\nrun(settings={SMALL!r}, out={str(folder)!r}, workers=1)"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not KILL_WHEN[moment](folder) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()

    result = run("digits-cnn", settings=SMALL, out=folder, workers=1, resume=True)
    assert model_bytes(folder) == model_bytes(private_run)
    assert result.rounds == 3
    for path in (folder / "ledgers").glob("*.sqlite"):
        with Ledger.read_only(path) as ledger:
            assert [entry.round for entry in ledger.entries()] == [1, 2, 3]
            ledger.verify()
    assert [e["round"] for e in events(folder, "round")] == [1, 2, 3]
