"""A run on a deployed server: choosing it, submitting it, following it to its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calyx.shared.errors import ConfigError, RunError

if TYPE_CHECKING:
    from calyx.cli.terminal.run_display import RunDisplay
    from calyx.server.deployment.submission import Submission
    from calyx.shared.config import Config

_PAUSE_S = 0.1


def choose(
    directory: Path,
    preset: str | None,
    settings: Sequence[str],
    name: str | None,
    data_dir: Path | None,
    *,
    resume: bool,
) -> tuple[Config, str]:
    """The configuration and the name of a run.

    Raises:
        ConfigError: no such preset, settings that are not allowed, or nothing to resume.
    """
    from calyx.server.deployment.folder import ServerFolder
    from calyx.server.deployment.submission import stored_config
    from calyx.simulations.presets import DEFAULT, resolve

    ServerFolder(directory).settings()
    if not resume:
        config = resolve(preset or DEFAULT, settings, data_dir)
        return config, name or f"{config.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    if name is None:
        raise ConfigError(
            "--resume needs the --name of the run",
            hint=f"calyx server status {directory} lists the runs",
        )
    if data_dir is not None:
        raise ConfigError(
            "--data-dir cannot be given with --resume: a run keeps the test records it was started "
            "with",
            hint="leave out --data-dir",
        )
    stored = stored_config(ServerFolder(directory), name)
    if preset is None and not settings:
        return stored, name
    return resolve(preset or stored.name, settings), name


def submit_run(directory: Path, name: str, config: Config, *, resume: bool) -> Submission:
    """Try the run's model, and hand it to the server (`calyx.server.deployment.handover`).

    Raises:
        ModelError: the model, or the device for it, cannot be used.
        ConfigError: its sealed updates are larger than what devices can hand over.
    """
    from calyx.server.deployment.folder import ServerFolder
    from calyx.server.deployment.handover import check_upload, submit
    from calyx.shared.data import load_split
    from calyx.shared.models.tryout import try_model
    from calyx.shared.models.vector import dimension
    from calyx.simulations.run_folder import environment_of

    if not resume:
        test = load_split(config.data, config.seed).test
        model = try_model(config, test.spec, test.classes)
        check_upload(config, dimension(model))
    environment = environment_of(config)
    environment["randomness"] = {
        "seed": config.seed,
        "noise": "each device's own, from its system's entropy" if config.is_private else "none",
    }
    return submit(ServerFolder(directory), name, config, environment, resume=resume)


def follow(directory: Path, name: str, display: RunDisplay) -> dict[str, Any]:
    """Show a run until its end, and return its figures.

    Raises:
        RunError: it failed, was stopped, or the server went down.
    """
    from calyx.server.deployment.folder import ServerFolder
    from calyx.server.deployment.submission import read_submission
    from calyx.server.state.journal import FILE_NAME as JOURNAL
    from calyx.simulations.follower import JournalFollower

    folder = ServerFolder(directory)
    began = time.monotonic()
    with JournalFollower(folder.run_dir(name) / JOURNAL, display.on_event):
        while (submission := read_submission(folder, name)).is_open:
            if folder.running_pid() is None:
                raise RunError(
                    f"the server in {directory} went down",
                    hint=f"start it with: calyx server up {directory}; the run then continues",
                )
            time.sleep(_PAUSE_S)
    if submission.state == "failed":
        raise RunError(
            f"run {name} failed: {submission.error}",
            hint=f"the folder {folder.run_dir(name)} holds its journal",
        )
    if submission.state == "stopped":
        raise RunError(
            f"run {name} was stopped",
            hint=f"continue it with: calyx server run {directory} --name {name} --resume",
        )
    return _result(folder.run_dir(name), name, time.monotonic() - began)


def _result(run_dir: Path, name: str, seconds: float) -> dict[str, Any]:
    from calyx.server.state.journal import RunEvents
    from calyx.server.state.outcome import RunFigures

    return {
        "run": name,
        "state": "completed",
        **asdict(RunFigures.of(RunEvents.read(run_dir))),
        "seconds": round(seconds, 3),
        "run_dir": str(run_dir),
    }
