"""What a long-running process logs, in a file that does not grow without limit."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

from calyx.shared.host.private_files import private_directory

_FILE_BYTES, _OLD_FILES = 1_000_000, 5


@contextmanager
def logging_to(path: Path, logger: str = "") -> Iterator[None]:
    """Within the block, what is said to a logger also goes to a file.

    Args:
        path: of the file; its folder is made, 0700.
        logger: its name; by default the root, and so everything.
    """
    private_directory(path.parent)
    handler = RotatingFileHandler(path, maxBytes=_FILE_BYTES, backupCount=_OLD_FILES)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    chosen = logging.getLogger(logger)
    level = chosen.level
    chosen.addHandler(handler)
    chosen.setLevel(logging.INFO)
    try:
        yield
    finally:
        chosen.removeHandler(handler)
        chosen.setLevel(level)
        handler.close()
