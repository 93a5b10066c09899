"""A whole simulation in reading order; the Python API behind ``calyx simulate``.

>>> from calyx import run
>>> result = run("digits-cnn", rounds=20, settings={"data.partition": "dirichlet"})
>>> result.accuracy, result.epsilon_max, result.run_dir
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from calyx.server.state.journal import FILE_NAME as JOURNAL
from calyx.server.state.journal import Event, append
from calyx.server.state.outcome import RunFigures
from calyx.shared.config import Config
from calyx.shared.config.load import Scalar, Settings, build, to_run_config
from calyx.shared.errors import ConfigError, RunError
from calyx.simulations.claim import check_length, check_vacant, claimed, default_place, owned
from calyx.simulations.own_code import make_reachable
from calyx.simulations.presets import DEFAULT, in_folder, resolve
from calyx.simulations.run_folder import RunFolder, folder_to_resume
from calyx.simulations.run_result import RunResult

if TYPE_CHECKING:
    from calyx.shared.data import Dataset
    from calyx.simulations.engines.simulation import Simulation


def run(
    preset: str | os.PathLike[str] | None = None,
    *,
    rounds: int | None = None,
    clients: int | None = None,
    epsilon: float | None = None,
    seed: int | None = None,
    settings: Settings = (),
    data_dir: str | os.PathLike[str] | None = None,
    task: str | None = None,
    start: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    resume: bool = False,
    verbose: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> RunResult:
    """Run a federation on this machine.

    What is said twice: settings win over the preset, the shorthands over `settings`, and
    `data_dir` over all of them. In paths, ``~`` is the user's home.

    Args:
        preset: name of a preset or path of a TOML file; ``digits-cnn`` if left out, or on resume
            whatever the folder holds.
        rounds, clients, epsilon, seed: shorthands for settings of the same meaning.
        settings: further settings, as ``{"privacy.epsilon": 3}`` or as the texts
            ``["privacy.epsilon=3"]`` that ``--set`` takes; docs/configuration.md has them all.
        data_dir: folder or file with the records.
        task: a task of your own, as ``module:object``, with its records and model; see
            `calyx.Task`.
        start: weights to start from, a ``.safetensors`` file or a run folder.
        out: the run folder, by default ``runs/PRESET-TIME``.
        engine: ``local``, or ``ray`` for Flower's Ray runtime.
        workers: client processes; by default one a core. It cannot change the result.
        resume: continue the run in `out` (or the newest of this preset) where it stopped.
        verbose: let the libraries' log output through.
        on_event: called from another thread with each event of the run as it happens.

    Raises:
        CalyxError: see `calyx.shared.errors`; `ConfigError` before anything is written.
    """
    started = time.monotonic()
    shorthands: dict[str, Scalar | None] = {
        "training.rounds": rounds,
        "federation.clients": clients,
        "privacy.epsilon": epsilon,
        "seed": seed,
        "training.start": None if start is None else os.fspath(start),
    }
    chosen = _Chosen(preset, settings, shorthands, data_dir, task)
    config, place = _choose(chosen, None if out is None else Path(out).expanduser(), resume=resume)
    if workers is not None and workers < 1:
        raise ConfigError(f"workers = {workers}", hint="use at least 1")
    from calyx.shared.models.tryout import torch_device

    torch_device(config.training.device)

    with ExitStack() as owner:
        # 1. Who has which records. Only when all that can be tried has been is the folder made.
        folder = _begun(config, place, owner, on_event)

        # 2. What each party is told, and 3. the rounds; an observer reads the journal.
        journal = folder.path / JOURNAL
        journal.unlink(missing_ok=True)
        with ExitStack() as stack:
            simulation, workers = assemble(config, folder, engine, workers, stack)
            if on_event is not None:
                from calyx.simulations.follower import JournalFollower

                stack.enter_context(JournalFollower(journal, on_event))
            _run_engine(engine, simulation, workers, verbose=verbose)

        # 4. What came of it; what was spent is read from the ledgers.
        result = _result(config, folder, time.monotonic() - started)
        end = {"event": "end", **result.as_dict()}
        append(folder.path, end)
    if on_event is not None:
        on_event(end)
    return result


@dataclass(frozen=True)
class _Chosen:
    """What the caller of `run` said about the configuration."""

    preset: str | os.PathLike[str] | None
    settings: Settings
    shorthands: Mapping[str, Scalar | None]
    data_dir: str | os.PathLike[str] | None
    task: str | None

    @property
    def has_settings(self) -> bool:
        """Whether it says more than where the data are."""
        given = any(value is not None for value in self.shorthands.values())
        return bool(self.preset or self.settings) or given

    def config(self, preset: str) -> Config:
        """All of it, on top of `preset` if it names none."""
        return resolve(
            self.preset or preset,
            self.settings,
            self.data_dir,
            shorthands=self.shorthands,
            task=self.task,
        )


def _choose(chosen: _Chosen, out: Path | None, *, resume: bool) -> tuple[Config, RunFolder | None]:
    """The run's configuration and its folder; None for a new one under ``runs``. Makes nothing."""
    if not resume:
        config = chosen.config(DEFAULT)
        if out is None:
            check_length(default_place(config.name))
            return config, None
        check_vacant(out, resumed=False)
        return config, RunFolder(out)
    name = chosen.task.partition(":")[0] if chosen.task else Path(chosen.preset or DEFAULT).stem
    folder = folder_to_resume(out, name)
    if not folder.exists:
        # Killed before the folder was complete: nothing had begun, so begin.
        return chosen.config(DEFAULT), folder
    stored = folder.stored_config()
    if chosen.task is not None:
        if stored.task.kind != chosen.task:
            raise ConfigError(
                f"{folder.path} holds a run of task.kind = {stored.task.kind}",
                hint=f"resume it with the same task, or begin a new run of {chosen.task}",
            )
        # A folder may come from elsewhere: code that it names is looked for where the user is only
        # if the user names it too.
        make_reachable()
    if chosen.has_settings:
        config = chosen.config(stored.name)
        folder.check_same(config)
        stored = config.model_copy(update={"name": stored.name}) if chosen.data_dir else stored
    elif chosen.data_dir is not None:
        stored = build(stored.model_dump(), in_folder(chosen.data_dir))
    return stored, folder


def _begun(
    config: Config,
    place: RunFolder | None,
    owner: ExitStack,
    on_event: Callable[[Event], None] | None,
) -> RunFolder:
    """The folder of a run that begins or goes on, held until `owner` closes."""
    if place is not None and place.exists:
        owner.enter_context(owned(place.path))
        place.keep_identity()
        return place
    from calyx.shared.data import load_split
    from calyx.shared.models.tryout import try_model

    split = load_split(config.data, config.seed, config.task)
    train = split.train
    if on_event is not None and (split.done or split.warnings):
        # Only for the display; the journal is the server's, which sees no training records.
        on_event({"event": "data", "done": [*split.done], "warnings": [*split.warnings]})
    try_model(config, train.spec)
    parts = _parts(config, train)
    out = None if place is None else place.path
    folder = RunFolder(owner.enter_context(claimed(out, config.name)))
    folder.prepare(config, parts)
    return folder


def partition_of(config: Config) -> list[Any]:
    """Record indices of every simulated client."""
    from calyx.shared.data import load_split

    return _parts(config, load_split(config.data, config.seed, config.task).train)


def _parts(config: Config, train: Dataset) -> list[Any]:
    from calyx.shared.data import partition

    return partition(train, config.data, config.federation.clients, config.seed)


def assemble(
    config: Config, folder: RunFolder, engine: str, workers: int | None, stack: ExitStack
) -> tuple[Simulation, int]:
    """What each party is told, the key authority of a sealed run, and how many workers there are.

    The authority lives until `stack` closes.
    """
    from calyx.simulations.engines.engine import default_workers
    from calyx.simulations.engines.simulation import Simulation

    number = workers or default_workers(config.cohort_size)
    server: dict[str, str | int | float | bool] = {
        "run": folder.run,
        "run-dir": str(folder.path),
        "engine": engine,
        "workers": number,
        "simulation-seed": config.seed,
    }
    clients: dict[int, dict[str, str | int | float | bool]] = {
        i: {
            "partition-id": i,
            "partition-file": str(folder.partition_path),
            "simulation-seed": config.seed,
            "ledger": str(folder.ledger_path(i)),
            "batch-log": str(folder.batches_path(i)),
        }
        for i in range(config.federation.clients)
    }
    if not config.is_sealed:
        return Simulation(to_run_config(config), server, clients), number
    from calyx.simulations.authority import simulated_authority

    trusted = stack.enter_context(simulated_authority(config))
    for i, settings in clients.items():
        settings |= trusted.settings_of(i)
    return Simulation(to_run_config(config), server, clients, trusted.authority), number


def _run_engine(engine: str, simulation: Any, workers: int, *, verbose: bool) -> None:
    from calyx.simulations.engines.engine import run_local, run_ray

    try:
        (run_ray if engine == "ray" else run_local)(simulation, workers, verbose=verbose)
    except OSError as error:
        raise RunError(
            f"the run stopped: {error.strerror or error}",
            hint="continue it with --resume",
        ) from error


def _result(config: Config, folder: RunFolder, seconds: float) -> RunResult:
    figures = RunFigures.of(folder.told())
    return RunResult(
        accuracy=figures.accuracy,
        metrics=figures.metrics,
        loss=figures.loss,
        epsilon_max=_epsilon_from_ledgers(config, folder),
        delta=figures.delta,
        noise_multiplier=figures.noise_multiplier,
        rounds=figures.rounds,
        clients=figures.clients,
        rejected=figures.rejected,
        rounds_with_effect=figures.rounds_with_effect,
        seconds=round(seconds, 3),
        seconds_per_round=figures.seconds_per_round,
        run_dir=str(folder.path),
    )


def _epsilon_from_ledgers(config: Config, folder: RunFolder) -> float | None:
    """Largest epsilon over all ledgers; None when some access had no noise."""
    from calyx.client.ledger.ledger import Ledger

    most = 0.0
    for path in sorted(folder.ledger_dir.glob("*.sqlite")):
        with Ledger.read_only(path) as ledger:
            spent = ledger.spent(config.privacy.delta, config.privacy.unit)
        most = max(most, spent.epsilon)
    return most if math.isfinite(most) else None
