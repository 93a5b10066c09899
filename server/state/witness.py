"""What the server remembers of the key authority's log: the newest release of a run that it got.

Every release gives its position in the authority's hash-chained log. The server writes down the
newest beside the run's checkpoints before it uses the values, and shows it whenever it opens the
run. An authority that was restored from a backup has no such entry: it would release again a round
that it has already released, for other contributors, and the difference of two sums is a single
update. So it refuses (`Refusal.ROLLED_BACK`). What this cannot do is in docs/adr/0018.
"""

from __future__ import annotations

import json
from pathlib import Path

from calyx.shared.errors import CheckpointError
from calyx.shared.host.atomic_write import write_atomically
from calyx.shared.protocol.authority.interface import Head, Refusal, Released
from calyx.shared.protocol.signatures.signed import is_hex

FILE_NAME = "authority-head.json"


class Witness:
    """The newest release of one run.

    Args:
        run_dir: the run folder; None where the authority ends with the process (a simulation):
            there is no log that could be restored.

    Raises:
        CheckpointError: what was written down cannot be read.
    """

    def __init__(self, run_dir: Path | None) -> None:
        self._path = run_dir / FILE_NAME if run_dir is not None else None
        self.head = _read(self._path) if self._path is not None else None

    def saw(self, released: Released) -> None:
        """Remember a release, durably.

        Raises:
            ReleaseRefused: its position in the log is not after that of an earlier release: the
                log has lost entries since. Its values must not be used.
        """
        head = (released.log_index, released.log_hash)
        if self.head is not None and head[0] <= self.head[0]:
            raise Refusal.ROLLED_BACK.error(
                f"the key authority's release is entry {head[0]} of its log; an earlier one was "
                f"entry {self.head[0]}: the log was restored from a backup"
            )
        if self._path is not None:
            content = json.dumps({"index": head[0], "hash": head[1]})
            write_atomically(self._path, f"{content}\n".encode())
        self.head = head


def _read(path: Path) -> Head | None:
    try:
        fields = json.loads(path.read_text(encoding="ascii"))
        index, entry_hash = fields["index"], fields["hash"]
        if type(index) is not int or index < 0 or not is_hex(entry_hash, 64):
            raise ValueError("it is not a position in a log")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be used ({error})",
            hint=(
                "restore it, or ask the key authority's operator whether its log was restored from "
                "a backup, and delete it only if it was not"
            ),
        ) from None
    return index, entry_hash
