"""How large a message of the server may be: said by the owner, watched while it is fetched.

A message comes as objects. Each answer says how long it is before it is read (a longer one is not
read); what has come is added up, across the objects fetched at once; and an array may name one of
its parts many times, so what it will become is counted too, before it is put together.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from shared.errors import ProtocolError
from shared.protocol import flower_internals as flower

# One object: a part of 5 MB of an array, or a record as a whole.
OBJECT_BYTES = 16 * 2**20
# What no object comes in: lists of objects, the configuration of a run.
OTHER_BYTES = 4 * 2**20
# Names of the parts of arrays; more of them would be lists that are larger than what they name.
_MOST_PARTS = 10**6


def most_bytes(path: str) -> int:
    """Longest answer to a call of a device, bytes."""
    return OBJECT_BYTES + 1024 if path == "/v1/fleet/pull-object" else OTHER_BYTES


class SizeGuard:
    """Counts one message; may be called from several threads.

    Args:
        most: bytes that it may have, and may become.
    """

    def __init__(self, most: int) -> None:
        self._most, self._got, self._parts = most, 0, 0
        self._sizes: dict[str, int] = {}
        self._arrays: list[list[str]] = []
        self._lock = threading.Lock()

    def look_at(self, tree: flower.ObjectTree) -> None:
        """Refuse a message that cannot be within the limit, before anything of it is fetched.

        Raises:
            ProtocolError: it has too many objects.
        """
        # An object has a head of some 50 bytes, and a name of 64 in the list.
        if sum(1 for _ in _nodes(tree)) * 50 > self._most:
            raise ProtocolError("a message of the server has more objects than this device reads")

    def take(self, object_id: str, content: bytes) -> None:
        """Count an object that came.

        Raises:
            ProtocolError: with it the message is too large.
            ValueError: it cannot be read.
        """
        parts = flower.chunks_of(content)
        with self._lock:
            self._got += len(content)
            self._sizes[object_id] = len(content)
            if parts is not None:
                self._parts += len(parts)
                self._arrays.append(parts)
            if self._got > self._most or self._parts > _MOST_PARTS:
                raise self._too_large()

    def check_whole(self) -> None:
        """Refuse a message whose arrays would become too large.

        Raises:
            ProtocolError: they would.
        """
        total = sum(self._sizes.get(part, 0) for parts in self._arrays for part in parts)
        if total > self._most:
            raise self._too_large()

    def _too_large(self) -> ProtocolError:
        return ProtocolError(
            f"a message of the server is larger than the {self._most} bytes that this device's "
            "owner allows (max_message_bytes in device.toml)"
        )


def _nodes(tree: flower.ObjectTree) -> Iterator[flower.ObjectTree]:
    left = [tree]
    while left:
        node = left.pop()
        yield node
        left.extend(node.children)
