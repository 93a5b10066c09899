"""How large an answer and a message of the server may be: the owner sets the second limit.

Each answer states its length before it is read, and a longer one is not read; the objects of a
message are counted as they come (`calyx.shared.protocol.message_size`).
"""

from __future__ import annotations

from calyx.shared.protocol.message_size import SizeGuard

# One object: a part of 5 MB of an array, or a record as a whole.
OBJECT_BYTES = 16 * 2**20
# Answers that hold no object: lists of objects, the configuration of a run.
OTHER_BYTES = 4 * 2**20


def most_bytes(path: str) -> int:
    """Longest answer to a call of a device, bytes."""
    return OBJECT_BYTES + 1024 if path == "/v1/fleet/pull-object" else OTHER_BYTES


def guard_of(most: int) -> SizeGuard:
    """Counts one message, up to the number of bytes that the owner allows."""
    return SizeGuard(
        most,
        f"a message of the server is larger than the {most} bytes that this device's "
        "owner allows (max_message_bytes in device.toml), or made of too many pieces",
    )
