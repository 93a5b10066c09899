"""Checkpoints: one safetensors file a round; a crash leaves the old one or the new one.

The file holds the global weights (``model/NAME``), their running average (``average/NAME``), the
strategy's state (``strategy/NAME``) and, in the header, everything else the server must remember:
round, roster, history. It holds no update of any single client.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load, save

from calyx.shared.errors import CheckpointError
from calyx.shared.host.atomic_write import write_atomically
from calyx.shared.host.regular_file import MOST_HASHED_BYTES, read_regular
from calyx.shared.protocol.arrays import NDArray, Weights

_KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """The server's state after `round` rounds.

    Attributes:
        round: last completed round, 0 before the first.
        config_digest: of the run it belongs to.
        weights: the global model.
        strategy_state: server-side optimiser state.
        average: running average of the weights; empty if there is none.
        roster: see `calyx.server.roster.Roster.to_json`.
        history: one event per completed round.
        contributors: in a sealed run, the clients it was opened for at the key authority.
    """

    round: int
    config_digest: str
    weights: Weights
    strategy_state: dict[str, NDArray] = field(default_factory=dict)
    average: dict[str, NDArray] = field(default_factory=dict)
    roster: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    contributors: list[str] = field(default_factory=list)


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint and remove all but the newest two."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {f"model/{k}": v for k, v in checkpoint.weights.items()}
    tensors |= {f"strategy/{k}": v for k, v in checkpoint.strategy_state.items()}
    tensors |= {f"average/{k}": v for k, v in checkpoint.average.items()}
    rest = {
        "round": checkpoint.round,
        "config_digest": checkpoint.config_digest,
        "order": list(checkpoint.weights),
        "roster": checkpoint.roster,
        "history": checkpoint.history,
        "contributors": checkpoint.contributors,
    }
    path = directory / f"round-{checkpoint.round:06d}.safetensors"
    write_atomically(path, save(tensors, metadata={"calyx": json.dumps(rest)}))
    for old in sorted(directory.glob("round-*.safetensors"))[:-_KEEP]:
        old.unlink()
    return path


def load_latest(directory: Path, config_digest: str) -> Checkpoint | None:
    """Read the newest checkpoint, None if there is none.

    Raises:
        CheckpointError: it cannot be read or belongs to a run with another configuration.
    """
    paths = sorted(directory.glob("round-*.safetensors"))
    if not paths:
        return None
    path = paths[-1]
    try:
        content = read_regular(path, directory.parent, MOST_HASHED_BYTES)
        tensors, rest = load(content), json.loads(_metadata(content)["calyx"])
        checkpoint = Checkpoint(
            round=int(rest["round"]),
            config_digest=str(rest["config_digest"]),
            weights={name: tensors[f"model/{name}"] for name in rest["order"]},
            strategy_state=_under("strategy/", tensors),
            average=_under("average/", tensors),
            roster=rest["roster"],
            history=rest["history"],
            contributors=rest["contributors"],
        )
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"the checkpoint {path} cannot be read ({error})",
            hint="delete it to use the one before",
        ) from None
    if checkpoint.config_digest != config_digest:
        raise CheckpointError(
            f"{path} belongs to a run with another configuration",
            hint="resume with the same settings",
        )
    return checkpoint


def _metadata(content: bytes) -> dict[str, Any]:
    """What the header holds beside the arrays; `safe_open` would open the path itself."""
    length = int.from_bytes(content[:8], "little")
    return dict(json.loads(content[8 : 8 + length])["__metadata__"])


def _under(prefix: str, tensors: dict[str, NDArray]) -> dict[str, NDArray]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def save_model(path: Path, weights: Weights) -> None:
    """Write bare weights, loadable by anything that reads safetensors."""
    write_atomically(path, save(weights))
