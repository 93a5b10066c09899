"""Ciphertexts in a file, with what belongs to them: one safetensors file, never unpickled.

Both sides keep some: the server a sum until its round is done, a device its last reply.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from calyx.shared.errors import ProtocolError

_HEADER = "calyx"


def to_bytes(chunks: Sequence[bytes], fields: Mapping[str, Any]) -> bytes:
    """The content of such a file.

    Args:
        chunks: serialised ciphertexts, in order.
        fields: what JSON can hold.
    """
    tensors = {f"{i:08d}": np.frombuffer(chunk, np.uint8) for i, chunk in enumerate(chunks)}
    return save(tensors, metadata={_HEADER: json.dumps(fields)})


def read(path: Path) -> tuple[tuple[bytes, ...], dict[str, Any]]:
    """Chunks and fields of a file made of `to_bytes`.

    Raises:
        FileNotFoundError: there is none.
        ProtocolError: it cannot be read.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            fields = json.loads((file.metadata() or {})[_HEADER])
            chunks = tuple(file.get_tensor(name).tobytes() for name in sorted(file.keys()))
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ProtocolError(
            f"{path} cannot be read: {error}",
            hint="restore it from a copy",
        ) from None
    if not isinstance(fields, dict):
        raise ProtocolError(f"{path} cannot be read: its header is not a mapping")
    return chunks, fields
