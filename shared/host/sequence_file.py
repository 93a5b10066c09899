"""A number that only grows, kept through crashes and power cuts."""

from __future__ import annotations

from pathlib import Path

from calyx.shared.errors import ProtocolError
from calyx.shared.host.private_files import replace_file

# Numbers are of 64 bits.
_MOST_DIGITS = 20


class SequenceFile:
    """The last number of a sequence, in a file of its own (0600).

    Args:
        path: of the file; no file is a sequence that has not begun.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def last(self) -> int:
        """The last number; 0 if there was none.

        Raises:
            ProtocolError: the file cannot be read. To start over would be to forget.
        """
        try:
            text = self._path.read_text(encoding="ascii")
        except FileNotFoundError:
            return 0
        except (OSError, UnicodeDecodeError):
            text = ""
        if not text.isdigit() or len(text) > _MOST_DIGITS:
            raise ProtocolError(f"{self._path} is damaged", hint="restore it from a copy")
        return int(text)

    def advance(self, number: int) -> None:
        """Keep a number that is larger than the last; it is on the disk when this returns."""
        replace_file(self._path, str(number).encode())
