"""Things that hold a file or a connection until they are closed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self


class Closable(ABC):
    """A context that ends with `close`, however its block ends."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is held; a second call does no harm."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
