"""Model weights in messages: `ArrayRecord` to plain NumPy and back, checked on the way in.

The receiver knows the model, so it knows each array's name, shape and type. Whatever differs
is refused before it can broadcast, overflow or poison anything.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord

from calyx.shared.errors import ProtocolError

NDArray = np.ndarray[Any, np.dtype[Any]]
Weights = dict[str, NDArray]

# Weights that a server sends are no larger. Training in single precision stays below by orders of
# magnitude; what is larger was made up, to bring a record's gradient to overflow or to cancel.
LARGEST_WEIGHT = 1e6

# A .npy header is at most a few hundred bytes for the shapes that models have.
_HEADER_ALLOWANCE_BYTES = 1024


def to_record(weights: Mapping[str, NDArray]) -> ArrayRecord:
    """Pack named arrays, keeping their order."""
    return ArrayRecord({name: Array(np.asarray(w, order="C")) for name, w in weights.items()})


def weights_of(model: torch.nn.Module) -> Weights:
    """Copy a model's state as NumPy arrays on the CPU."""
    return {name: t.detach().cpu().numpy().copy() for name, t in model.state_dict().items()}


def load_weights(model: torch.nn.Module, weights: Mapping[str, NDArray]) -> None:
    """Write `weights` into `model`; names and shapes must be exactly the model's own."""
    state = OrderedDict((name, torch.from_numpy(w.copy())) for name, w in weights.items())
    model.load_state_dict(state, strict=True)


def read_record(
    record: ArrayRecord,
    like: Mapping[str, NDArray],
    *,
    must_be_finite: bool = True,
    largest: float = math.inf,
) -> Weights:
    """Unpack a record that must have the names, shapes and dtypes of `like`.

    Args:
        record: as another party sent it.
        like: the receiver's own arrays.
        must_be_finite: False where values are private and not noised yet. To refuse some of them
            would tell which they were; the caller deals with NaN and infinity.
        largest: bound of floating-point values; a client takes `LARGEST_WEIGHT`. A server must not
            bound an update that it is to clip, for the same reason.

    Raises:
        ProtocolError: naming the first array that differs or, where that is refused, holds NaN,
            infinity, or a value beyond the bound.
    """
    if missing := sorted(set(like) - set(record)):
        raise ProtocolError(f"array {missing[0]} is missing from the update")
    if extra := sorted(set(record) - set(like)):
        raise ProtocolError(f"array {extra[0]!r} is not part of the model")
    arrays = {name: _read_array(name, record[name], expected) for name, expected in like.items()}
    for name, value in arrays.items():
        if value.dtype.kind != "f" or not value.size:
            continue
        if must_be_finite and not np.isfinite(value).all():
            raise ProtocolError(f"array {name} holds NaN or infinity")
        if float(np.abs(value).max()) > largest:
            raise ProtocolError(
                f"array {name} holds values beyond {largest:g}, which no training leads to",
                hint="lower the learning rate if training did lead to them",
            )
    return arrays


def _read_array(name: str, array: Array, expected: NDArray) -> NDArray:
    if len(array.data) > expected.nbytes + _HEADER_ALLOWANCE_BYTES:
        raise ProtocolError(
            f"array {name} has {len(array.data)} bytes; the model's has {expected.nbytes}"
        )
    try:
        value = array.numpy()  # never unpickles
    except Exception as error:
        raise ProtocolError(f"array {name} cannot be decoded: {type(error).__name__}") from None
    if not isinstance(value, np.ndarray):  # NumPy also opens archives of arrays
        raise ProtocolError(f"array {name} cannot be decoded: it does not hold a single array")
    if value.shape != expected.shape:
        raise ProtocolError(f"array {name} has shape {value.shape}; expected {expected.shape}")
    if value.dtype != expected.dtype:
        raise ProtocolError(f"array {name} has type {value.dtype}; expected {expected.dtype}")
    return value


def digest(weights: Mapping[str, NDArray]) -> str:
    """SHA-256 over names, types, shapes and bytes, as hex."""
    state = hashlib.sha256()
    for name, w in weights.items():
        state.update(repr((name, w.dtype.str, w.shape)).encode())
        state.update(w.tobytes())
    return state.hexdigest()
