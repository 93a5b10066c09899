"""Errors that cross the wire: a number for the kind and one line of reason.

A client that declines or fails answers with one of these instead of an update. Only the text of
our own errors is sent; the text of an unexpected exception may quote private records, so the
other side gets its type alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from flwr.app import Error, Message

from shared.errors import BudgetExceeded, CalyxError, LedgerError, PolicyViolation


class Refusal(IntEnum):
    """Kind of an error reply; numbers above Flower's own codes."""

    POLICY = 1001
    BUDGET = 1002
    LEDGER = 1003
    FAILED = 1010

    @property
    def is_final(self) -> bool:
        """Whether asking the same client again cannot help."""
        return self is not Refusal.FAILED


_KINDS: tuple[tuple[type[CalyxError], Refusal], ...] = (
    (PolicyViolation, Refusal.POLICY),
    (BudgetExceeded, Refusal.BUDGET),
    (LedgerError, Refusal.LEDGER),
)


@dataclass(frozen=True)
class Failure:
    """An error reply as the server reads it."""

    kind: Refusal
    reason: str


def error_reply(error: Exception, message: Message) -> Message:
    """The reply to `message` that reports `error`."""
    if isinstance(error, CalyxError):
        kind = next((k for cls, k in _KINDS if isinstance(error, cls)), Refusal.FAILED)
        reason = str(error)
    else:
        kind, reason = Refusal.FAILED, f"unexpected {type(error).__name__} on the client"
    return Message(Error(code=int(kind), reason=reason), reply_to=message)


def read_failure(reply: Message) -> Failure:
    """Read an error reply; codes that are not ours count as a failure to answer."""
    code, reason = reply.error.code, reply.error.reason or "no reason given"
    kind = Refusal(code) if code in Refusal.__members__.values() else Refusal.FAILED
    return Failure(kind, " ".join(reason.split())[:500])
