"""Record canaries in the real training path: can an observer tell which of them were in?

m canaries are spread over the clients, and a fair coin decides for each whether it takes part. A
hash of the coins goes into the chain of evidence before the first round. Then the run is repeated
with them (`calyx.audit.replay.replay`), through the clients' own clipping, noise and sealing, and
what observers see is projected on every canary's direction, round by round
(`calyx.audit.attacks.canaries.observers`).

Where whole clients are protected, clients are the canaries: `calyx.audit.attacks.canaries.client`.

Projections and coins are the evidence; scores and bounds are made from them
(`calyx.audit.findings`).
"""

from __future__ import annotations

import hashlib
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calyx.audit.attacks.canaries import client as client_canaries
from calyx.audit.attacks.canaries.observers import (
    Placed,
    SumWatcher,
    UpdateWatcher,
    Watcher,
    insiders_of,
    momentum_gains,
)
from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.progress import Progress
from calyx.audit.replay.replay import Observers, replayed_run
from calyx.client.node import Node
from calyx.shared.config import Config
from calyx.shared.data import load_split
from calyx.shared.errors import UsageError
from calyx.shared.models import build_model
from calyx.shared.models.vector import dimension
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.tasks.find import task_of
from calyx.simulations.run import partition_of
from calyx.simulations.run_folder import RunFolder

COMMITMENT, NAME, REMAINDERS = "canaries-commitment", "canaries", "canaries-remainders"
DEFAULT_CANARIES = 1000
# Directions are orthogonal, but the sum of all must stay small beside the noise, whose norm grows
# with the dimension.
_DIMENSIONS_PER_CANARY = 4
# Fewer guesses show nothing, and the coins of a handful could all be the same.
_FEWEST = 20


def run(
    folder: RunFolder,
    store: EvidenceStore,
    progress: Progress,
    *,
    canaries: int = DEFAULT_CANARIES,
    workers: int | None = None,
) -> None:
    """Repeat the run with canaries and put coins and projections into evidence.

    Args:
        folder: the run.
        store: its evidence.
        progress: receives what is being done and the share of it that is done.
        canaries: m, their number; fewer for a very small model.
        workers: client processes; None for one per core.

    Raises:
        UsageError: the run has no record-level noise of clients, so there is nothing to audit; or
            its model is too small for canaries.
    """
    config = folder.stored_config()
    if config.privacy.unit == "client":
        client_canaries.run(folder, store, progress, workers=workers)
        return
    refuse_unfit(config)
    insiders = insiders_of(config)
    placed = _placed(config, canaries, config.federation.clients - len(insiders))
    nonce = secrets.token_bytes(32)
    store.put_json(
        COMMITMENT,
        {
            "sha256": commitment(placed.coins, nonce),
            "canaries": len(placed.coins),
            "direction_seed": placed.seed,
            "insiders": len(insiders),
        },
    )
    watcher = _watcher(config, folder, placed, insiders)
    total = config.training.rounds
    with tempfile.TemporaryDirectory(prefix="calyx-canaries-") as name:
        path = Path(name) / "canaries.npz"
        clients = range(config.federation.clients)
        own = {f"client-{k}": placed.places[placed.coins & (placed.owner == k)] for k in clients}
        np.savez(path, seed=np.int64(placed.seed), **own)
        observers = Observers(
            tap=watcher,
            on_release=watcher.on_release,
            client_settings={"canaries": str(path)},
            on_round=lambda number: progress("canaries", number / total),
        )
        with replayed_run(config, observers, workers=workers) as repeated:
            repeated_metrics = repeated.told().metrics(-1)
    plans = {client: one.plan for client, one in watcher.instructions.items()}
    store.put_json(
        f"{NAME}-run",
        {
            "metrics_with_canaries": repeated_metrics,
            "metrics_without": folder.told().metrics(-1),
            "rounds": len(watcher.public.values),
            "dimension": watcher.dimension,
            "noise_multiplier": min(plan.noise_multiplier for plan in plans.values()),
            "sampling_rate": max(plan.sampling_rate for plan in plans.values()),
            "steps_per_round": max(plan.steps_per_round for plan in plans.values()),
            "disagreements": watcher.disagreements,
        },
    )
    if len(watcher.remainders):
        store.put_arrays(REMAINDERS, watcher.remainders.arrays())
    store.put_arrays(NAME, _arrays(config, watcher, placed, nonce, plans))


def refuse_unfit(config: Config) -> None:
    """Canaries are records protected by client noise; refuse a run without any.

    Raises:
        UsageError: with the reason.
    """
    privacy, training = config.privacy, config.training
    if not (privacy.unit == "record" and privacy.is_noised_by_clients):
        raise UsageError(
            "record canaries need unit = record with local or distributed noise; this run has unit "
            f"{privacy.unit} and noise {privacy.noise}",
            hint="leave the attack out with --skip canaries",
        )
    if privacy.noise == "local" and config.is_sealed:
        raise UsageError(
            "sealed updates with local noise show an observer only sums",
            hint="audit the same run with secure_aggregation.scheme = none",
        )
    if privacy.noise == "local" and training.optimizer != "sgd":
        raise UsageError(
            f"an update made by {training.optimizer} is not a sum of gradients, so canaries cannot "
            "be measured in it",
            hint="audit the same run with training.optimizer = sgd",
        )


def commitment(coins: NDArray[np.bool_], nonce: bytes) -> str:
    """What is fixed before the first round: SHA-256 over a secret nonce and the coins, hex."""
    return hashlib.sha256(nonce + coins.astype(np.bool_).tobytes()).hexdigest()


def _placed(config: Config, wanted: int, holders: int) -> Placed:
    """Coins and directions; each audit draws new ones."""
    split = load_split(config.data, config.seed, config.task)
    spec = split.test.spec
    task = task_of(config.task, spec.target)
    size = dimension(build_model(config.model, spec, config.seed, task))
    canaries = min(wanted, size // _DIMENSIONS_PER_CANARY)
    if canaries < _FEWEST:
        raise UsageError(
            f"a model of {size} parameters has room for {canaries} canaries, and {_FEWEST} are the "
            "fewest",
            hint="leave the attack out with --skip canaries",
        )
    coins = np.frombuffer(secrets.token_bytes(canaries), dtype=np.uint8) & 1
    seed = secrets.randbits(63)
    places = np.random.default_rng(seed).permutation(size)[:canaries]
    return Placed(seed, places, np.arange(canaries) % holders, coins.astype(np.bool_))


def _watcher(config: Config, folder: RunFolder, placed: Placed, insiders: Sequence[int]) -> Watcher:
    partition = partition_of(config)
    if config.privacy.noise == "local":
        return UpdateWatcher(config, placed, partition)
    nodes = [
        Node.from_settings(
            {
                "partition-id": client,
                "partition-file": str(folder.partition_path),
                "simulation-seed": config.seed,
                "ledger": "none: it is asked what it sent, and trains nothing",
            }
        )
        for client in insiders
    ]
    return SumWatcher(config, placed, partition, nodes)


def _arrays(
    config: Config,
    watcher: Watcher,
    placed: Placed,
    nonce: bytes,
    plans: dict[int, PrivacyPlan],
) -> dict[str, NDArray[np.generic]]:
    holders = [plans[client] for client in placed.owner]
    momentum = config.training.momentum if config.privacy.noise == "local" else 0.0
    gains = [momentum_gains(momentum, plan.steps_per_round) for plan in holders]
    arrays: dict[str, NDArray[np.generic]] = {
        "coins": placed.coins,
        "nonce": np.frombuffer(nonce, dtype=np.uint8),
        "rates": np.array([plan.sampling_rate for plan in holders]),
        # What a canary that is in adds to a round, on average over sampling.
        "signals": np.array(
            [
                plan.sampling_rate * gain.sum() / np.sqrt(np.mean(gain**2))
                for plan, gain in zip(holders, gains, strict=True)
            ]
        ),
    }
    for name, seen in (("public", watcher.public), ("informed", watcher.informed)):
        if len(seen.values):
            arrays |= {name: seen.values, f"{name}-noise": seen.noise}
    return arrays
