"""Signs what a deployed server sends to its devices; the grid hands every message over first."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Message

from calyx.server.deployment.folder import ServerFolder
from calyx.shared.errors import UsageError
from calyx.shared.host.sequence_file import SequenceFile
from calyx.shared.protocol.signatures import instruction
from calyx.shared.protocol.signatures.instruction import RunConfig


class Signer:
    """Signs the messages of one run.

    Args:
        key: the server's instruction key.
        sequence: of the server, kept between its runs.
        names: of the devices by Flower's node id, as they are approved now. A device that is not
            among them gets a message that names no device, and refuses it.
        run_config: what devices are told of the run.
    """

    def __init__(
        self,
        key: Ed25519PrivateKey,
        sequence: SequenceFile,
        names: Callable[[], dict[int, str]],
        run_config: RunConfig,
    ) -> None:
        self._key, self._sequence = key, sequence
        self._names, self._run_config = names, dict(run_config)

    def sign(self, messages: Sequence[Message]) -> None:
        """Put a signature into each of the messages."""
        # By the clock, so that a folder restored from a copy continues beyond what devices have
        # seen; and never back, even if the clock goes back.
        first = max(time.time_ns(), self._sequence.last() + 1)
        self._sequence.advance(first + len(messages))
        names, known = self._names(), dict[int, bytes]()
        for number, message in enumerate(messages, first):
            name = names.get(message.metadata.dst_node_id, "")
            instruction.sign(self._key, message, name, self._run_config, number, known)


def instruction_key(folder: ServerFolder) -> Ed25519PrivateKey:
    """The key whose public half devices have pinned.

    Raises:
        UsageError: it is not there. A new one would be refused by every device.
    """
    path = folder.instruction_key_path
    try:
        return Ed25519PrivateKey.from_private_bytes(path.read_bytes())
    except (OSError, ValueError):
        raise UsageError(
            f"the key {path}, which devices have pinned, cannot be read",
            hint="restore it from a copy, or make a new server and enrol the devices there",
        ) from None
