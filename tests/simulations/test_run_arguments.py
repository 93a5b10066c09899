"""What a caller may give to `calyx.run`: text or paths, settings both ways, and what wins."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from calyx import RunResult, run
from calyx.shared.config import Config
from calyx.shared.config.load import build, from_toml
from calyx.shared.errors import ConfigError

FILE = """
[data]
source = "npz"
view = "sequence"
[model]
name = "lstm"
hidden = 4
[training]
rounds = 1
[federation]
clients = 2
[privacy]
noise = "none"
"""


class Elsewhere(os.PathLike[str]):
    """A path of a user's own class."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A configuration and the data it is for."""
    draw = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    x, y = draw.random((60, 3, 2), dtype=np.float32), draw.integers(0, 2, 60)
    np.savez(tmp_path / "data" / "train.npz", x=x, y=y)
    (tmp_path / "mine.toml").write_text(FILE)
    return tmp_path


def config_of(result: RunResult) -> Config:
    return build(from_toml((Path(result.run_dir) / "config.toml").read_text()))


@pytest.mark.parametrize("kind", [str, Path, PurePosixPath, Elsewhere])
def test_each_path_is_text_or_a_path_object(
    kind: Callable[[Path], str | os.PathLike[str]], project: Path
) -> None:
    result = run(
        kind(project / "mine.toml"),
        data_dir=kind(project / "data"),
        out=kind(project / "run"),
        workers=1,
    )
    assert result.run_dir == str(project / "run")
    assert config_of(result).data.directory == str(project / "data")
    again = run(out=kind(project / "run"), data_dir=kind(project / "data"), resume=True, workers=1)
    assert again.loss == result.loss


def test_a_tilde_is_the_users_home(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(project))
    monkeypatch.chdir("/")
    result = run("~/mine.toml", data_dir="~/data", out="~/run", workers=1)
    assert result.run_dir == str(project / "run")


def test_a_path_object_is_a_file_even_if_a_preset_has_that_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="digits-cnn cannot be read: No such file"):
        run(PurePosixPath("digits-cnn"), out=tmp_path / "run")


def test_settings_win_over_the_file_shorthands_over_settings_and_data_dir_over_all(
    project: Path,
) -> None:
    result = run(
        project / "mine.toml",
        rounds=2,
        settings={
            "training.rounds": 5,
            "federation.clients": 3,
            "data.directory": "/nowhere",
            "training.device": "cpu",
        },
        data_dir=project / "data",
        out=project / "run",
        workers=1,
    )
    assert (result.rounds, result.clients) == (2, 3)
    assert config_of(result).data.directory == str(project / "data")


def test_texts_and_a_mapping_are_the_same_run(project: Path) -> None:
    results = [
        run(project / "mine.toml", settings=settings, data_dir=project / "data", out=out, workers=1)
        for settings, out in (
            ({"seed": 3, "model.hidden": 5}, project / "a"),
            (["seed=3", "model.hidden=5"], project / "b"),
        )
    ]
    models = [(Path(r.run_dir) / "model.safetensors").read_bytes() for r in results]
    assert models[0] == models[1]


def test_resuming_with_a_mapping_of_other_settings_is_refused(project: Path) -> None:
    run(project / "mine.toml", data_dir=project / "data", out=project / "run", workers=1)
    with pytest.raises(ConfigError, match="seed = 3: the run was started with 0"):
        run(
            project / "mine.toml",
            settings={"seed": 3},
            data_dir=project / "data",
            out=project / "run",
            resume=True,
        )


def test_a_setting_of_a_wrong_type_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"privacy.epsilon = \[3\]: must be str, int"):
        run(settings={"privacy.epsilon": [3]}, out=tmp_path / "run")  # type: ignore[dict-item]
    assert not (tmp_path / "run").exists()
