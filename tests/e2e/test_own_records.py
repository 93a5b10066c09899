"""Devices with records of their own kind: a table that a preset describes, and a task of their own.

Real processes, sealed sums. What a server says about the records beside that is refused, and
nothing leaves the devices.
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.deployment_harness import Deployment, calyx
from calyx.cli.arguments.device_records import RecordOptions
from calyx.client.deployment.folder import DataPlace
from calyx.client.ledger.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

PRESET = """\
# Ill or well by three figures
seed = 0
[data]
source = "table"
view = "sequence"
label = "outcome"
classes = "well,ill"
columns = "age,pressure,pulse"
bounds = "age=0:100, pressure=50:250, pulse=30:200"
[model]
name = "lstm"
hidden = 8
[training]
rounds = 2
[federation]
clients = 3
[privacy]
noise = "distributed"
sampling = "full"
epsilon = 4.0
[secure_aggregation]
scheme = "bfv"
min_contributors = 3
"""
COLUMNS = ("number", "age", "pressure", "pulse", "outcome", "sex")
TASK = """\
import numpy as np
import torch
from calyx import Task
from torch import nn


def records(place):
    rows = np.loadtxt(place, delimiter=",", skiprows=1, usecols=(1, 2, 3), dtype=np.float32)
    return rows[:, :2] / 100, rows[:, 2] / 100


def losses(outputs, labels):
    return (outputs[:, 0] - labels) ** 2


def error(outputs, labels):
    return float((outputs[:, 0] - labels).abs().mean())


task = Task(losses, {"error": error}, records, lambda spec: nn.Linear(2, 1))
"""


def patients(path: Path, seed: int, *, shuffled: bool = False) -> Path:
    """A table of 60 invented patients, maybe with its columns in another order."""
    rng = random.Random(seed)
    order = list(COLUMNS)
    if shuffled:
        order.reverse()
    lines = [",".join(order)]
    for number in range(60):
        ill = rng.random() < 0.5
        row = {
            "number": f"{seed}-{number}",
            "age": rng.randint(20, 90),
            "pressure": rng.gauss(160 if ill else 120, 10),
            "pulse": rng.gauss(90 if ill else 70, 8),
            "outcome": "ill" if ill else "well",
            "sex": rng.choice("fm"),
        }
        lines.append(",".join(str(row[name]) for name in order))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def preset(place: Path) -> Path:
    path = place / "patients.toml"
    path.write_text(PRESET)
    return path


@pytest.fixture(scope="module")
def tables(
    place: Path, preset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    def records(number: int) -> DataPlace:
        path = patients(place / f"own-{number}.csv", number, shuffled=number == 1)
        return RecordOptions(str(path), preset=str(preset)).place()

    with Deployment(tmp_path_factory.mktemp("deployment"), records=records) as deployment:
        for number in range(3):
            allow_more(deployment, number)
        yield deployment


def allow_more(deployment: Deployment, number: int) -> None:
    """The first policy is for one run."""
    path = deployment.device(number).policy_path
    path.write_text(path.read_text().replace("max_epsilon = 4.0", "max_epsilon = 100.0"))


def run(
    deployment: Deployment, name: str, preset: str, data: Path, *settings: str
) -> subprocess.CompletedProcess[str]:
    flags = [word for setting in settings for word in ("--set", setting)]
    words = ("server", "run", str(deployment.server_dir), preset, "--name", name, "--json")
    return subprocess.run(
        calyx(*words, "--data-dir", str(data), *flags),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def charges(deployment: Deployment, run: str) -> list[int]:
    found = []
    for number in range(3):
        with Ledger.read_only(deployment.device(number).ledger_path) as ledger:
            found += [entry.round for entry in ledger.entries() if entry.run == run]
    return found


def test_devices_with_tables_train_a_run_that_means_the_same_records(
    tables: Deployment, place: Path, preset: Path
) -> None:
    done = run(tables, "patients", str(preset), patients(place / "server.csv", 9))
    assert done.returncode == 0, done.stderr + tables.devices[0].said
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["state"], result["rounds"], result["clients"]) == ("completed", 2, 3)
    assert sorted(charges(tables, "patients")) == [1, 1, 1, 2, 2, 2]


OTHERWISE = {
    "another label": (
        ("data.label=sex", "data.classes=f,m"),
        "data.label = sex was requested, this device has outcome",
    ),
    "classes in another order": (
        ("data.classes=ill,well",),
        "data.classes = ill,well was requested, this device has well,ill",
    ),
    "another column": (
        ("data.columns=number,age,pressure", "data.bounds="),
        "data.columns = number,age,pressure was requested, this device has age,pressure,pulse",
    ),
    "another task": (
        ("task.kind=regression", "data.label=age", "data.columns=pulse", "data.bounds=age=0:100"),
        "task.kind = regression was requested, this device has classification",
    ),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_run_that_means_other_records_is_refused_before_it_costs_anything(
    tables: Deployment, place: Path, preset: Path, name: str
) -> None:
    settings, reason = OTHERWISE[name]
    data = patients(place / "server.csv", 9)
    text = data.read_text()
    if "number" in reason:  # the server's own table can be read so
        data.write_text("\n".join(line.replace("9-", "9", 1) for line in text.splitlines()) + "\n")
    name = f"other-{list(OTHERWISE).index(name)}"
    done = run(tables, name, str(preset), data, *settings)
    assert done.returncode == 1, done.stdout + done.stderr
    assert reason in done.stderr
    assert all(reason in device.said for device in tables.devices)
    assert not charges(tables, name)


def test_devices_run_their_own_task_as_it_was_agreed_to_and_no_other(
    place: Path, make_deployment: Callable[..., Deployment]
) -> None:
    code = place / "code"
    code.mkdir()
    module = code / "own_study.py"
    module.write_text(TASK)
    named = ("digits-cnn", "task.kind=own_study:task", "data.source=task", "model.name=task")
    rounds = ("data.view=stored", "training.rounds=2", "federation.clients=3")
    sealed = ("secure_aggregation.min_contributors=3",)

    def records(number: int) -> DataPlace:
        path = patients(place / f"task-{number}.csv", 20 + number)
        options = RecordOptions(str(path), task="own_study:task", python_path=code)
        return options.place()

    environment = {"PYTHONPATH": str(code)}
    with make_deployment(records=records, environment=environment) as deployment:
        for number in range(3):
            allow_more(deployment, number)
        server = patients(place / "server.csv", 9)
        deployment.submit("agreed", *named[1:], *rounds, *sealed, f"data.directory={server}")
        assert deployment.wait("agreed").state == "completed", deployment.devices[0].said
        assert sorted(charges(deployment, "agreed")) == [1, 1, 1, 2, 2, 2]

        sprung = place / "sprung"
        module.write_text(f"open({str(sprung)!r}, 'w').close()\n{TASK}")
        # The server's own code is its own affair: it runs what it has loaded.
        deployment.submit("changed", *named[1:], *rounds, *sealed, f"data.directory={server}")
        assert deployment.wait("changed").state == "failed"
        for device in deployment.devices:
            assert "its code has changed since the owner agreed to it" in device.said
        assert not charges(deployment, "changed")


def test_a_federation_on_ipv6_addresses_trains(
    make_deployment: Callable[..., Deployment],
) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    with make_deployment(host="::1") as deployment:
        assert deployment.device(0).settings().server.startswith("[::1]:")
        deployment.submit("six", "training.rounds=1")
        assert deployment.wait("six").state == "completed"
