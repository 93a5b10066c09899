"""A sealed run that kills itself at a chosen point: ``python crashing.py FOLDER POINT``.

Three real clients in this process, a real key authority on a folder that outlives it. The noise
is seeded, so that results can be compared; in all else the clients behave like real devices:
they charge every time, keep their replies, and obey each signed message once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Message

import calyx.server.federation as federation
from calyx.authority.local import LocalAuthority
from calyx.client.app import app
from calyx.client.node import Node
from calyx.client.sealing.identity import ContributorIdentity
from calyx.server.deployment.signing import Signer
from calyx.server.federation import Federation
from calyx.server.run_settings import RunSettings
from calyx.shared.config.load import to_run_config
from calyx.shared.host.sequence_file import SequenceFile
from calyx.simulations.engines.grid import InProcessExecutor, LocalGrid, client_contexts
from calyx.simulations.presets import resolve
from calyx.simulations.run import partition_of
from calyx.simulations.run_folder import RunFolder

CLIENTS, ROUNDS, KILLED_IN = 3, 3, 2
CONFIG = resolve(
    "digits-cnn",
    (
        f"training.rounds={ROUNDS}",
        f"federation.clients={CLIENTS}",
        "secure_aggregation.min_contributors=2",
        "data.max_records=200",
        "privacy.epsilon=8",
        "federation.join_timeout_s=1",
    ),
)
KEY = Ed25519PrivateKey.from_private_bytes(b"\x05" * 32)
Patch = pytest.MonkeyPatch


def die() -> None:
    """Like kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)


def before_the_record(patch: Patch) -> None:
    """All clients have answered; none of it is on the server's disk."""
    _around(patch, federation, "save_pending", first=lambda call: _due(call[1].record.round))


def before_the_release(patch: Patch) -> None:
    """The sum is on disk, the authority has not been asked."""
    _around(patch, LocalAuthority, "release", first=lambda call: _due(call[1].round))


def after_the_release(patch: Patch) -> None:
    """The authority has released the sum; none of it is in a checkpoint."""
    _around(patch, LocalAuthority, "release", then=lambda call: _due(call[1].round))


def after_the_checkpoint(patch: Patch) -> None:
    """The round is done, its record is still there."""
    _around(patch, federation, "save_checkpoint", then=lambda call: _due(call[1].round))


POINTS = {
    point.__name__: point
    for point in (before_the_record, before_the_release, after_the_release, after_the_checkpoint)
}


def _due(server_round: int) -> None:
    if server_round == KILLED_IN:
        die()


def _around(
    patch: Patch,
    owner: Any,
    name: str,
    *,
    first: Callable[[tuple[Any, ...]], None] = lambda _: None,
    then: Callable[[tuple[Any, ...]], None] = lambda _: None,
) -> None:
    """Have something done before or after each call of a function, with its arguments."""
    real = getattr(owner, name)

    def watched(*arguments: Any) -> Any:
        first(arguments)
        result = real(*arguments)
        then(arguments)
        return result

    patch.setattr(owner, name, watched)


@contextmanager
def key_authority(folder: Path) -> Iterator[tuple[LocalAuthority, dict[int, Path]]]:
    """The authority and the clients' keys of a folder, made if they are missing."""
    identities = {number: folder / f"client-{number}.key" for number in range(CLIENTS)}
    with LocalAuthority(folder / "authority", min_contributors=2) as authority:
        if not identities[0].exists():
            made = [ContributorIdentity.create(identities[n]).request(str(n)) for n in identities]
            authority.enrolments.approve(made)
        yield authority, identities


class SignedGrid(LocalGrid):
    """Signs what is sent, as a deployed server does."""

    signer: Signer

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        leaving = list(messages)
        self.signer.sign(leaving)
        return super().push_messages(leaving)


def federate(folder: Path, away: tuple[int, ...] = ()) -> None:
    """Begin or continue the run of a folder.

    Args:
        folder: with the parties' folders.
        away: clients that are not there.
    """
    run_folder = RunFolder(folder / "run")
    if not run_folder.exists:
        run_folder.prepare(CONFIG, partition_of(CONFIG))
    with key_authority(folder) as (authority, identities), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Node, "is_simulated", property(lambda node: False))
        nodes: dict[int, dict[str, Any]] = {
            2 + number: {
                "partition-id": number,
                "partition-file": str(run_folder.partition_path),
                "simulation-seed": CONFIG.seed,
                "ledger": str(run_folder.ledger_path(number)),
                "identity": str(identities[number]),
                "authority-key": authority.verify_key.hex(),
                "client-name": str(number),
                "server-key": KEY.public_key().public_bytes_raw().hex(),
                "sequence": str(folder / f"client-{number}.last"),
            }
            for number in range(CLIENTS)
            if number not in away
        }
        run_config = to_run_config(CONFIG)
        contexts = client_contexts(nodes, run_config)
        grid = SignedGrid(InProcessExecutor(app, contexts), nodes)
        names = {2 + number: str(number) for number in range(CLIENTS)}
        grid.signer = Signer(KEY, SequenceFile(folder / "server.last"), lambda: names, run_config)
        # Not that of a simulation: this authority outlives the server, and must match its log.
        settings = RunSettings("crash", run_folder.path, "local", 1)
        Federation(grid, CONFIG, settings, authority).run()


if __name__ == "__main__":
    POINTS[sys.argv[2]](pytest.MonkeyPatch())
    federate(Path(sys.argv[1]))
