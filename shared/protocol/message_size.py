"""How large a message that another party sent may be, counted while it is fetched.

A message comes as objects. What has come is added up, across the objects fetched at once. An array
may name one of its parts many times, so what it will become is counted too, before it is put
together. And a list of short values is many times as large in memory as on the wire: of values in
records, and of what is not data of an array, there may be only so much.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from calyx.shared.errors import ProtocolError
from calyx.shared.protocol.flower import internals as flower
from calyx.shared.protocol.flower.object_size import look_into

# Names of the parts of arrays; more of them would be lists that are larger than what they name.
_MOST_PARTS = 10**6
# A plan, an offer or a sealed update has some tens of values; a value takes some 60 bytes or more.
_MOST_VALUES = 10**5
# Of objects that are neither data of an array nor a record: names, and which parts belong together.
_MOST_STRUCTURE_BYTES = 16 * 2**20


class SizeGuard:
    """Counts one message; may be called from several threads.

    Args:
        most: bytes that it may have, and may become.
        too_large: what is said of one that is larger.
    """

    def __init__(self, most: int, too_large: str) -> None:
        self._most, self._too_large = most, too_large
        self._got, self._structure, self._values, self._parts = 0, 0, 0, 0
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
            raise ProtocolError(f"it has more objects than fit: {self._too_large}")

    def take(self, object_id: str, content: bytes) -> None:
        """Count an object that came.

        Raises:
            ProtocolError: with it the message is too large.
            ValueError: it cannot be read.
        """
        look = look_into(content)
        with self._lock:
            self._got += len(content)
            self._sizes[object_id] = len(content)
            self._values += look.values
            self._structure += len(content) if look.is_structure else 0
            if look.parts:
                self._parts += len(look.parts)
                self._arrays.append(list(look.parts))
            if (
                self._got > self._most
                or self._parts > _MOST_PARTS
                or self._values > _MOST_VALUES
                or self._structure > _MOST_STRUCTURE_BYTES
            ):
                raise ProtocolError(self._too_large)

    def check_whole(self) -> None:
        """Refuse a message whose arrays would become too large.

        Raises:
            ProtocolError: they would.
        """
        total = sum(self._sizes.get(part, 0) for parts in self._arrays for part in parts)
        if total > self._most:
            raise ProtocolError(self._too_large)


def _nodes(tree: flower.ObjectTree) -> Iterator[flower.ObjectTree]:
    left = [tree]
    while left:
        node = left.pop()
        yield node
        left.extend(node.children)
