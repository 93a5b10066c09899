"""Errors that cross the wire: a number for the kind and one line of reason.

A client that declines or fails answers with one of these instead of an update. What it may say is
a list of what may leave a device, not of what may not: the reasons of errors about the server's own
request are sent, as long as they name no file. Errors about the device itself (its records, ledger,
keys, settings) name its folders, and an unexpected exception may quote private records: of those
the other side gets the kind alone, and the device's own log has the text (`calyx.client.app`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from flwr.app import Error, Message

from calyx.shared.errors import (
    BudgetExceeded,
    CalyxError,
    DataError,
    EncryptionError,
    LedgerError,
    ModelError,
    PolicyViolation,
    PrivacyError,
    ProtocolError,
    UsageError,
)


class Refusal(IntEnum):
    """Kind of an error reply; numbers above Flower's own codes."""

    POLICY = 1001
    BUDGET = 1002
    LEDGER = 1003
    UNFIT = 1004
    FAILED = 1010

    @property
    def is_final(self) -> bool:
        """Whether asking the same client again cannot help.

        Each time it is asked, a client may be charged before it fails. So what follows from the
        run's configuration, from the model or from the client's records, and will come again in
        every round, is final; what may pass (a round's weights, a message, a crash) is not.
        """
        return self is not Refusal.FAILED


_KINDS: tuple[tuple[type[CalyxError], Refusal], ...] = (
    (PolicyViolation, Refusal.POLICY),
    (BudgetExceeded, Refusal.BUDGET),
    (LedgerError, Refusal.LEDGER),
    (PrivacyError, Refusal.UNFIT),  # a plan or a noise that cannot be; policy and budget are above
    (UsageError, Refusal.UNFIT),  # configuration, model, device, records
)

# Errors that speak about the server's request. PrivacyError has policy and budget below it.
_OPEN = (PrivacyError, ProtocolError, EncryptionError, ModelError)
# What is said instead of the others.
_WITHHELD: tuple[tuple[type[CalyxError], str], ...] = (
    (DataError, "this device's records cannot be used"),
    (LedgerError, "this device's privacy ledger cannot be used"),
    (CalyxError, "this device cannot do it"),
)
# A slash or backslash with something beside it, or a home folder. "and/or" is caught too: a reason
# withheld by mistake costs its reader a look into the log, a path told cannot be taken back.
_PATH = re.compile(r"[\\/]\S|\S[\\/]|~\w")


@dataclass(frozen=True)
class Failure:
    """An error reply as the server reads it."""

    kind: Refusal
    reason: str


def error_reply(error: Exception, message: Message) -> Message:
    """The reply to `message` that reports `error`."""
    if isinstance(error, CalyxError):
        kind = next((k for cls, k in _KINDS if isinstance(error, cls)), Refusal.FAILED)
        reason = _told(error)
    else:
        kind, reason = Refusal.FAILED, f"unexpected {type(error).__name__} on the client"
    return Message(Error(code=int(kind), reason=reason), reply_to=message)


def _told(error: CalyxError) -> str:
    """What of an error's text may leave the device."""
    text = error.full_text
    if isinstance(error, _OPEN) and not _PATH.search(text):
        return text
    instead = next(text for cls, text in _WITHHELD if isinstance(error, cls))
    return f"{instead}; its own log says why"


def is_answer(reply: Message) -> bool:
    """Whether the client app answered, with a yes or a refusal, and not Flower in its place."""
    return not reply.has_error() or reply.error.code in Refusal.__members__.values()


def read_failure(reply: Message) -> Failure:
    """Read an error reply; codes that are not ours count as a failure to answer."""
    code, reason = reply.error.code, reply.error.reason or "no reason given"
    kind = Refusal(code) if code in Refusal.__members__.values() else Refusal.FAILED
    return Failure(kind, " ".join(reason.split())[:500])
