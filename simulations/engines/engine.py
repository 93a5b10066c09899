"""Runtimes of a simulation: the same ServerApp and ClientApp on the `local` engine or on Ray."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec

from flwr.app import Context, RecordDict

from calyx.shared.errors import ConfigError
from calyx.simulations.engines.grid import (
    RUN_ID,
    SERVER_NODE_ID,
    ClientExecutor,
    InProcessExecutor,
    LocalGrid,
    Settings,
    client_contexts,
)
from calyx.simulations.engines.pool import WorkerPool
from calyx.simulations.engines.simulation import Simulation

CLIENT_APP = "calyx.client.app:app"


def default_workers(clients: int) -> int:
    """As many processes as there are cores this process may use, at most one a client."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cores, clients))


def run_local(simulation: Simulation, workers: int, *, verbose: bool = False) -> None:
    """Run on this machine: in this process for one worker, else in `workers` processes."""
    with _flower_log(verbose=verbose):
        _run_here(simulation, workers, verbose=verbose)


@contextmanager
def _flower_log(*, verbose: bool) -> Iterator[None]:
    """Keep Flower's progress lines from the user for a block, unless they were asked for."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.INFO if verbose else logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _run_here(simulation: Simulation, workers: int, *, verbose: bool) -> None:
    import torch

    from calyx.server.app import serve

    threads = torch.get_num_threads()
    # Sums over threads depend on their number; one thread is the same everywhere.
    torch.set_num_threads(1)
    nodes = simulation.nodes()
    executor = _executor(simulation, nodes, workers, verbose=verbose)
    try:
        grid = LocalGrid(executor, nodes, simulation.tap)
        serve(
            grid,
            Context(
                run_id=RUN_ID,
                node_id=SERVER_NODE_ID,
                node_config=dict(simulation.server),
                state=RecordDict(),
                run_config=dict(simulation.run_config),
            ),
            simulation.authority,
        )
    finally:
        executor.close()
        torch.set_num_threads(threads)


def _executor(
    simulation: Simulation, nodes: Mapping[int, Settings], workers: int, *, verbose: bool
) -> ClientExecutor:
    if workers > 1:
        return WorkerPool(workers, CLIENT_APP, nodes, simulation.run_config, verbose=verbose)
    from calyx.client.app import app as client_app

    return InProcessExecutor(client_app, client_contexts(nodes, simulation.run_config))


def run_ray(simulation: Simulation, workers: int, *, verbose: bool = False) -> None:
    """Run on Flower's Ray runtime.

    Raises:
        ConfigError: Ray is not installed.
    """
    if find_spec("ray") is None:
        raise ConfigError(
            "engine ray needs Ray, which is not installed",
            hint="install it with: pip install 'calyx-fl[ray]'",
        )
    from calyx.simulations.engines.ray_engine import run_on_ray

    run_on_ray(simulation, workers, verbose=verbose)
