"""The Ray runtime that Flower brings, for simulations that outgrow the local engine.

Flower gives simulated apps an empty run config and no settings of their own, so both apps are
wrapped: the wrapper makes a filled-in context (Flower refuses changes to its own) and calls the
very apps that run everywhere else.
"""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from calyx.shared.errors import CalyxError, RunError, full_text
from calyx.simulations.engines.pool import ONE_THREAD
from calyx.simulations.engines.simulation import Simulation


def run_on_ray(simulation: Simulation, workers: int, *, verbose: bool) -> None:
    """Run the apps on Ray with `workers` actors.

    Raises:
        RunError: Ray or Flower failed; errors of our own pass through unchanged.
    """
    import ray

    failures: list[CalyxError] = []
    # Ray's own processes inherit the environment: one thread each, and no reports to anyone.
    for name, value in {**ONE_THREAD, "RAY_USAGE_STATS_ENABLED": "0"}.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    backend = {
        "init_args": {
            "num_cpus": workers,
            "include_dashboard": False,
            "log_to_driver": verbose,
            "logging_level": logging.INFO if verbose else logging.CRITICAL,
        },
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run_simulation(
                server_app=_server_app(simulation, failures),
                client_app=_client_app(simulation),
                num_supernodes=len(simulation.clients),
                backend_config=backend,  # type: ignore[arg-type]
                verbose_logging=verbose,
            )
    except Exception as error:
        if not failures:
            raise RunError(
                f"the Ray runtime failed: {full_text(error)}",
                hint="the same command with --verbose shows why",
            ) from error
    finally:
        ray.shutdown()
    if failures:
        raise failures[0]
    if not (Path(str(simulation.server["run-dir"])) / "model.safetensors").is_file():
        raise RunError(
            "the Ray runtime ended before the run did",
            hint="the same command with --verbose shows why",
        )


def _server_app(simulation: Simulation, failures: list[CalyxError]) -> ServerApp:
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        from calyx.server.app import serve

        filled_in = Context(
            run_id=context.run_id,
            node_id=context.node_id,
            node_config=dict(simulation.server),
            state=context.state,
            run_config=dict(simulation.run_config),
        )
        try:
            serve(grid, filled_in, simulation.authority)
        except CalyxError as error:
            failures.append(error)
            raise

    return app


def _client_app(simulation: Simulation) -> ClientApp:
    """The client app with its context filled in; travels to the actors by value."""
    run_config, clients = simulation.run_config, dict(simulation.clients)

    def filled_in(message: Message, context: Context) -> Message:
        import torch

        from calyx.client.app import app as real_app

        torch.set_num_threads(1)
        own = Context(
            run_id=context.run_id,
            node_id=context.node_id,
            node_config=dict(clients[int(context.node_config["partition-id"])]),
            state=context.state,
            run_config=dict(run_config),
        )
        return real_app(message, own)

    app = ClientApp()
    app.query()(filled_in)
    app.query("sealing")(filled_in)
    app.query("proposal")(filled_in)
    app.train()(filled_in)
    app.evaluate()(filled_in)
    return app
