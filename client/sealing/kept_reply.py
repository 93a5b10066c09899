"""A device's last sealed reply, kept so that the same instruction gets the same bytes again.

A server that was killed in a round repeats the instruction. Trained and noised again, the answer
would be a second release of the same records, and would be charged again. What is kept here is
what has already left the device or was about to: ciphertexts and their receipt. Sent again, they
reveal nothing new, so they cost nothing (docs/adr/0015).

Only the last one is kept; a server carries out its rounds one after another.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from flwr.app import RecordDict

from calyx.shared.encryption import SealedVector
from calyx.shared.errors import ProtocolError, full_text
from calyx.shared.host.private_files import replace_file
from calyx.shared.protocol.sealed import ciphertext_file
from calyx.shared.protocol.sealed.messages import read_sealed_reply, sealed_reply
from calyx.shared.protocol.sealed.receipts import Receipt

_log = logging.getLogger("calyx.client")


@dataclass(frozen=True)
class ReplyKey:
    """What a reply was for; all of it must match.

    Attributes:
        run, round: as in the instruction.
        instruction: its digest.
        parameters, context: of the sealing: a reply that was sealed for another key is of no use.
    """

    run: str
    round: int
    instruction: str
    parameters: str
    context: str


class KeptReply:
    """The one file with the last reply.

    Args:
        path: where it lies, in a folder that exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def save(self, reply_key: ReplyKey, reply: RecordDict) -> None:
        """Keep a sealed reply, durably and privately; it replaces the one before.

        If that fails the reply can still be sent: a repeated instruction is then charged.
        """
        sealed, receipt = read_sealed_reply(reply)
        fields = {
            "run": reply_key.run,
            "round": reply_key.round,
            "instruction": reply_key.instruction,
            "parameters": sealed.parameters,
            "context": sealed.context,
            "receipt": receipt.to_json(),
        }
        try:
            replace_file(self._path, ciphertext_file.to_bytes(sealed.chunks, fields))
        except OSError as error:
            _log.warning("the last reply cannot be kept: %s", error)

    def load(self, reply_key: ReplyKey) -> RecordDict | None:
        """The reply that was made for exactly this key.

        None if there is none, or if it is not whole: the instruction is then carried out, and
        charged, like a new one.
        """
        try:
            chunks, fields = ciphertext_file.read(self._path)
            made_for = ReplyKey(
                fields["run"],
                fields["round"],
                fields["instruction"],
                fields["parameters"],
                fields["context"],
            )
            receipt = Receipt.from_json(fields["receipt"])
        except FileNotFoundError:
            return None
        except (ProtocolError, KeyError, TypeError) as error:
            _log.warning("the last reply was kept and cannot be used: %s", full_text(error))
            return None
        sealed = SealedVector(chunks, made_for.parameters, made_for.context)
        if made_for != reply_key or receipt.upload_hash != sealed.digest:
            return None
        return sealed_reply(sealed, receipt)
