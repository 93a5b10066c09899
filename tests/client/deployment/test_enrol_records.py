"""Enrolling with records of every kind: tried once, fixed for good, and what looks odd is said."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from scipy.io import wavfile

from calyx.cli.arguments.device_records import RecordOptions
from calyx.client.agreed_task import AgreedTask
from calyx.client.deployment.enrolment import Enrolled, enroll
from calyx.client.deployment.folder import Device
from calyx.client.deployment.launch import _check_ready
from calyx.client.node import Node
from calyx.client.policy import Policy
from calyx.shared.config.load import build, from_settings
from calyx.shared.errors import (
    ConfigError,
    DataError,
    LedgerError,
    ModelError,
    PolicyViolation,
    UsageError,
)
from calyx.shared.host.certificates import make_root

STUDY = """
[data]
source = "table"
view = "sequence"
label = "outcome"
classes = "well,ill"
columns = "age,pulse"
bounds = "age=0:100,pulse=0:200"
[model]
name = "{model}"
[privacy]
noise = "local"
[secure_aggregation]
scheme = "none"
"""
TASK = """
import numpy as np
from calyx import Task
from torch import nn
def records(place):
    return np.ones((6, 2), np.float32) * np.arange(6)[:, None], np.arange(6, dtype=np.float32)
def losses(outputs, labels):
    return (outputs[:, 0] - labels) ** 2
task = Task(losses, {"mae": lambda p, y: 0.0}, records, lambda spec: nn.Linear(2, 1))
"""


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(make_root("test", 5).certificate)
    return path


@pytest.fixture(autouse=True)
def _own_modules() -> Iterator[None]:
    before, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.startswith("study_"):
            del sys.modules[name]


def table(path: Path, outcomes: Sequence[str] = ("well", "ill")) -> Path:
    rows = [f"{20 + k},{60 + k},{outcomes[k % len(outcomes)]},{k % 2}" for k in range(12)]
    path.write_text("\n".join(["age,pulse,outcome,smokes", *rows]) + "\n")
    return path


def study(tmp_path: Path, model: str = "lstm") -> str:
    path = tmp_path / "study.toml"
    path.write_text(STUDY.format(model=model))
    return str(path)


def enrolled(
    tmp_path: Path, ca: Path, options: RecordOptions, name: str = "device", server: str = "h:1"
) -> Enrolled:
    place = options.place()
    return enroll(
        tmp_path / name,
        name=name,
        server=server,
        ca=ca,
        server_key="ab" * 32,
        authority_key="",
        data=place,
        run=options.run(place),
    )


def test_a_preset_says_how_a_table_is_read_and_the_device_keeps_it(
    tmp_path: Path, ca: Path
) -> None:
    own = table(tmp_path / "own.csv")
    device = enrolled(tmp_path, ca, RecordOptions(str(own), preset=study(tmp_path))).device
    written = tomllib.loads(device.settings_path.read_text())["data"]
    assert written["source"] == "table" and written["task"] == "classification"
    assert written["settings"] == {
        "label": "outcome",
        "classes": "well,ill",
        "columns": "age,pulse",
        "bounds": "age=0:100,pulse=0:200",
    }
    _check_ready(device, accept_overlap=False)
    run = build(from_settings(["data.view=sequence", "model.name=lstm"]))
    with pytest.raises(PolicyViolation, match=r'data\.label = "" was requested'):
        Node.from_settings(device.node_settings()).records(run)


def test_settings_without_a_preset_are_of_the_records_alone(tmp_path: Path, ca: Path) -> None:
    own = str(table(tmp_path / "own.csv"))
    given = ["data.label=outcome", "data.classes=well,ill"]
    made = enrolled(tmp_path, ca, RecordOptions(own, settings=given))
    assert Device(made.device.directory).settings().data.settings["label"] == "outcome"
    with pytest.raises(UsageError, match="privacy is of a run"):
        RecordOptions(own, settings=[*given, "privacy.epsilon=3"]).place()
    with pytest.raises(ConfigError, match=r"data\.window"):
        RecordOptions(own, settings=[*given, "data.window=3"]).place()
    with pytest.raises(ConfigError, match="needs the column with the class"):
        RecordOptions(own).place()


def test_a_class_without_records_is_said_and_allowed(tmp_path: Path, ca: Path) -> None:
    own = str(table(tmp_path / "own.csv", ["well"]))
    (warning,) = enrolled(tmp_path, ca, RecordOptions(own, preset=study(tmp_path))).warnings
    assert "no record of 1 of 2 classes: ill" in warning


def test_an_unknown_class_is_refused_with_file_and_line(tmp_path: Path, ca: Path) -> None:
    own = str(table(tmp_path / "own.csv", ["well", "ill", "unsure"]))
    with pytest.raises(DataError, match=r"own\.csv, line 4: outcome 'unsure' is not among"):
        enrolled(tmp_path, ca, RecordOptions(own, preset=study(tmp_path)))
    assert not (tmp_path / "device").exists()


def test_what_looks_unscaled_and_the_order_of_columns_are_said(tmp_path: Path, ca: Path) -> None:
    given = ["data.label=outcome", "data.classes=well,ill"]
    options = RecordOptions(str(table(tmp_path / "own.csv")), settings=given)
    said = " ".join(enrolled(tmp_path, ca, options).warnings)
    assert "columns look unscaled: age" in said
    assert "data.columns is not set" in said


@pytest.mark.parametrize(
    ("model", "error", "reason"),
    [("cnn", ConfigError, "model cnn takes image data"), ("nowhere:net", ModelError, "imported")],
)
def test_a_model_that_cannot_take_the_records_is_refused_before_keys_are_made(
    tmp_path: Path, ca: Path, model: str, error: type[Exception], reason: str
) -> None:
    own = str(table(tmp_path / "own.csv"))
    with pytest.raises(error, match=reason):
        enrolled(tmp_path, ca, RecordOptions(own, preset=study(tmp_path, model)))
    assert not (tmp_path / "device").exists()


def test_the_same_file_read_by_another_label_has_no_second_budget(tmp_path: Path, ca: Path) -> None:
    """No record has the same values and label, and all are of the same people."""
    own = table(tmp_path / "own.csv")
    enrolled(tmp_path, ca, RecordOptions(str(own), preset=study(tmp_path)))
    copy = tmp_path / "copy.csv"
    copy.write_bytes(own.read_bytes())
    other = ["data.label=smokes", "data.classes=0,1", "data.columns=age,pulse"]
    with pytest.raises(LedgerError, match="records of 1 of these 1 files, read otherwise, are"):
        enrolled(tmp_path, ca, RecordOptions(str(copy), settings=other), "second")


def test_recordings_are_enrolled_and_read_as_the_device_says(tmp_path: Path, ca: Path) -> None:
    folder = tmp_path / "sounds"
    for label, tone in (("low", 200), ("high", 900)):
        (folder / label).mkdir(parents=True)
        for number in range(3):
            wave = np.sin(np.arange(8000) * 2 * np.pi * (tone + number) / 8000)
            wavfile.write(folder / label / f"{number}.wav", 8000, (wave * 9000).astype(np.int16))
    given = ["data.classes=low,high", "data.sample_rate=8000", "data.mels=16"]
    device = enrolled(tmp_path, ca, RecordOptions(str(folder), settings=given)).device
    assert device.settings().data.source == "audio"
    run = build(from_settings([*given, "data.view=sequence", "model.name=lstm"]))
    assert len(Node.from_settings(device.node_settings()).records(run)) == 6


class TestOwnTask:
    def options(self, tmp_path: Path) -> tuple[RecordOptions, Path]:
        module = tmp_path / f"study_{uuid4().hex}.py"
        module.write_text(TASK)
        data = tmp_path / "own.csv"
        data.write_text("read by the task\n")
        kind = f"{module.stem}:task"
        return RecordOptions(str(data), task=kind, python_path=tmp_path), module

    def test_naming_it_agrees_to_its_code_as_it_is(self, tmp_path: Path, ca: Path) -> None:
        options, _ = self.options(tmp_path)
        device = enrolled(tmp_path, ca, options).device
        data = device.settings().data
        assert data.source == "task" and data.task == options.task
        (line,) = Policy.load(device.policy_path).training.agreed_tasks or ()
        assert line == AgreedTask.present(data.task)
        _check_ready(device, accept_overlap=False)

    def test_changed_code_does_not_join_and_the_owner_is_told_the_new_line(
        self, tmp_path: Path, ca: Path
    ) -> None:
        options, module = self.options(tmp_path)
        device = enrolled(tmp_path, ca, options).device
        old = AgreedTask.present(str(options.task)).sha256
        module.write_text(f"{TASK}# better\n")
        now = AgreedTask.present(str(options.task)).sha256
        with pytest.raises(PolicyViolation, match="has changed") as refused:
            _check_ready(device, accept_overlap=False)
        assert old[:12] in str(refused.value) and f"sha256:{now}" in refused.value.hint
        text = device.policy_path.read_text().replace(old, now)
        device.policy_path.write_text(text)
        del sys.modules[module.stem]  # as in another process
        _check_ready(device, accept_overlap=False)

    def test_a_module_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        options, module = self.options(tmp_path)
        module.unlink()
        with pytest.raises(UsageError, match="there is no module"):
            options.place()


@pytest.mark.parametrize("server", ["[::1]:9441", "fl.example.org:9441"])
def test_a_server_has_a_host_and_a_port(tmp_path: Path, ca: Path, server: str) -> None:
    options = RecordOptions(str(table(tmp_path / "own.csv")), preset=study(tmp_path))
    assert enrolled(tmp_path, ca, options, server=server).device.settings().server == server


def test_an_ipv6_address_without_brackets_is_refused_with_what_to_write(
    tmp_path: Path, ca: Path
) -> None:
    options = RecordOptions(str(table(tmp_path / "own.csv")), preset=study(tmp_path))
    with pytest.raises(ConfigError, match=r"write \[::1\]:9441"):
        enrolled(tmp_path, ca, options, server="::1:9441")
    assert not (tmp_path / "device").exists()
