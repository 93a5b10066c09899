"""Obeys only the server with the key that the owner pinned, and each of its messages once."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context, Message

from calyx.client.node import Node
from calyx.shared.errors import PolicyViolation, ProtocolError
from calyx.shared.host.sequence_file import SequenceFile
from calyx.shared.protocol.signatures.instruction import verify
from calyx.shared.protocol.signatures.signed import is_hex


def accept(message: Message, context: Context) -> None:
    """Accept a message that this device's server signed for it, after every one accepted before.

    Its number is on disk before anything is done about the message, so a crash cannot make an old
    message new. The server gives a message that it repeats a new number. Simulations have no key:
    both sides are one party there.

    Raises:
        ProtocolError: it is not signed as it must be, or came before.
        PolicyViolation: this device has no key pinned.
    """
    node = Node.from_settings(context.node_config)
    if node.is_simulated and not node.server_key:
        return
    if not is_hex(node.server_key, 64) or not node.sequence_path:
        raise PolicyViolation(
            "this device has pinned no key of its server and obeys no message",
            hint="name the key with the node settings 'server-key' and 'sequence'",
        )
    key = bytes.fromhex(node.server_key)
    number = verify(key, message, node.name, context.node_id, context.run_config)
    accepted = SequenceFile(Path(node.sequence_path))
    if number <= accepted.last():
        raise ProtocolError(
            "a message came again, or after a newer one; it is not obeyed twice",
            hint="if the server's clock was set back, correct it",
        )
    accepted.advance(number)
