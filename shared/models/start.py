"""Weights that a run starts from, instead of fresh ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from calyx.shared.config.schema import TrainingConfig
from calyx.shared.errors import ModelError

FILE_NAME = "model.safetensors"


def start_file(place: str) -> Path:
    """The file that ``training.start`` means: itself, or the final weights of a run folder."""
    path = Path(place).expanduser().absolute()
    return path / FILE_NAME if path.is_dir() else path


def start_sha256(place: str) -> str:
    """SHA-256 of these weights, hex.

    Raises:
        ModelError: there is no such file.
    """
    return hashlib.sha256(_content(start_file(place))).hexdigest()


def load_start(model: nn.Module, config: TrainingConfig) -> None:
    """Put the weights of ``training.start`` into `model`; nothing if there are none.

    Raises:
        ModelError: the file or its hash is not there, it is not the one that the run began with, or
            holds weights of another model.
    """
    if not config.start:
        return
    if not config.start_sha256:
        # Fresh weights in their place would be another run, under the same digest.
        raise ModelError(
            f"training.start = {config.start}: the hash of these weights is missing",
            hint="set training.start_sha256, or begin the run with calyx, which fills it in",
        )
    path = start_file(config.start)
    content = _content(path)
    if hashlib.sha256(content).hexdigest() != config.start_sha256:
        raise ModelError(
            f"{path} holds other weights than this run was configured with",
            hint="restore the file, or begin a new run",
        )
    try:
        given = load(content)
    except (SafetensorError, ValueError) as error:
        raise ModelError(
            f"{path} is not a file of weights: {error}",
            hint="name a .safetensors file or a run folder",
        ) from None
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    found = {name: value.shape for name, value in given.items()}
    if found != wanted:
        differing = sorted(
            name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)
        )
        raise ModelError(
            f"{path} holds weights of another model: {differing[0]} differs"
            + (f", and {len(differing) - 1} more" if len(differing) > 1 else ""),
            hint="use the model, sizes and classes that these weights were trained with",
        )
    model.load_state_dict(given)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"the weights to start from cannot be read: {path}: {error.strerror}",
            hint="name a .safetensors file or a run folder",
        ) from None
