"""Clients as canaries: how far does the model move in the direction of one client's update?

For ``unit = client`` a canary is a whole client, which sends a direction of its own in every round
in place of what it would learn (Andrew et al. 2023). The run is repeated with all clients as
canaries, through their own clipping, noise and sealing or the server's, until there are enough of
them. The evidence is the cosine of each direction with the movement of the global model from first
to last round, which is what everybody gets.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audit.evidence import EvidenceStore
from audit.twin import Watching, rounds_of, twin
from client.canaries import directions
from server.checkpoint import load_latest
from shared.config import Config
from shared.config.load import digest
from shared.data import load_split
from shared.errors import RunError, UsageError
from shared.models import build_model
from shared.models.vector import dimension, to_vector, trainable_names
from shared.protocol.arrays import weights_of
from simulations.run_folder import RunFolder

Progress = Callable[[str, float], None]

NAME = "client-canaries"
DEFAULT_CANARIES = 30


def run(
    folder: RunFolder,
    store: EvidenceStore,
    progress: Progress,
    *,
    canaries: int = DEFAULT_CANARIES,
    workers: int | None = None,
) -> None:
    """Repeat the run with canaries for clients and put the cosines into evidence.

    Args:
        folder: the run.
        store: its evidence.
        progress: told how far it is.
        canaries: how many there should be at least.
        workers: client processes; None for one a core.

    Raises:
        UsageError: the guarantee is not one for clients in a sum.
    """
    config = folder.stored_config()
    refuse_unfit(config)
    split = load_split(config.data, config.seed)
    model = build_model(config.model, split.test.input_shape, split.test.classes, config.seed)
    names, size = trainable_names(model), dimension(model)
    start = to_vector(weights_of(model), names)
    clients, seed = config.federation.clients, secrets.randbits(63)
    repeats = -(-canaries // clients)
    places = np.random.default_rng(seed).permutation(size)[: repeats * clients]
    rounds, total = config.training.rounds, repeats * config.training.rounds
    cosines: list[NDArray[np.float64]] = []
    with tempfile.TemporaryDirectory(prefix="calyx-canaries-") as name:
        for repeat, own in enumerate(places.reshape(repeats, clients)):
            path = Path(name) / f"canaries-{repeat}.npz"
            one_each = {f"client-{k}": np.array([place]) for k, place in enumerate(own)}
            np.savez(path, allow_pickle=False, seed=np.int64(seed), **one_each)

            def on_round(number: int, done: int = repeat * rounds) -> None:
                progress("canaries", (done + number) / total)

            watching = Watching(client_settings={"canaries": str(path)}, on_round=on_round)
            with twin(config, watching, workers=workers) as repeated:
                moved = to_vector(_last_weights(repeated, config), names) - start
            along = directions(seed, size).forward(moved)[own]
            cosines.append(along / np.linalg.norm(moved))
    store.put_json(
        f"{NAME}-run",
        {
            "dimension": size,
            "repeats": repeats,
            "clients": clients,
            "rounds": len(rounds_of(folder)),
        },
    )
    store.put_arrays(NAME, {"cosines": np.concatenate(cosines)})


def refuse_unfit(config: Config) -> None:
    """Say why this run has no clients that are protected within a sum, if so.

    Raises:
        UsageError: with the reason.
    """
    privacy = config.privacy
    if privacy.unit != "client" or privacy.noise not in ("distributed", "central"):
        raise UsageError(
            "canary clients need unit = client with distributed or central noise; this run has "
            f"unit {privacy.unit} and noise {privacy.noise}"
        )


def _last_weights(folder: RunFolder, config: Config) -> dict[str, NDArray[np.generic]]:
    """The global model after the last round; the kept model may be an average of several."""
    checkpoint = load_latest(folder.path / "checkpoints", digest(config))
    if checkpoint is None or checkpoint.round < config.training.rounds:
        raise RunError("a repeated run with canary clients did not reach its last round")
    return checkpoint.weights
