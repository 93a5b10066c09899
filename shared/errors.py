"""Every error that Calyx raises on purpose.

::

    CalyxError
    ├── UsageError                exit code 2: the request itself is wrong
    │   ├── ConfigError           a configuration value, with key, value and what is allowed
    │   ├── DataError             a data set that is missing, broken or does not fit
    │   └── ModelError            a model that cannot be built, or not be trained privately or here
    └── RunError                  exit code 1: the request was right, the run failed
        ├── PrivacyError          the asked-for guarantee cannot be given or accounted for
        │   ├── BudgetExceeded    the ledger would go over the owner's budget
        │   └── PolicyViolation   an instruction asks for less privacy than the owner allows
        ├── LedgerError           the ledger is unreadable, altered, busy or of other data
        ├── EnrolmentError        a device, key or certificate that the other side does not accept
        ├── EncryptionError       a ciphertext, key or packed field that must not be used
        ├── ReleaseRefused        the key authority does not release this sum
        ├── ProtocolError         a message that does not say what it must
        ├── EvidenceError         evidence of an audit that is missing or altered
        ├── CheckpointError       a checkpoint that is missing, broken or of another run
        └── RoundError            a round that cannot be completed
            └── UnfitSum          a released sum that honest clients do not add up to

Each message says in one line what is wrong and where; its `hint` says what to do about it. The
command shows them on two lines, ``error:`` and ``hint:``. Where one line has to do (journals, logs,
messages to other processes and parties) it is `full_text`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class CalyxError(Exception):
    """Base of every error raised on purpose; `exit_code` is what the command returns.

    Args:
        message: one line that says what is wrong, and names the file, key or value.
        hint: one line that says what to do; empty where nothing can be done.
    """

    exit_code = 1

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # for tracebacks, in scripts and notebooks

    @property
    def full_text(self) -> str:
        """Message and hint as one line; what journals keep and other parties are sent."""
        return "; ".join(part for part in (str(self), self.hint) if part)


class UsageError(CalyxError):
    """The request itself is wrong: nothing was started."""

    exit_code = 2


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a configuration.

    Attributes:
        key: dotted key, for example ``privacy.epsilon``.
        value: the offending value as the user would write it.
        allowed: what is allowed there, in words.
        hint: what to set instead; may be empty.
    """

    key: str
    value: str
    allowed: str
    hint: str = ""

    def __str__(self) -> str:
        # One line, whatever the user wrote.
        return " ".join(f"{self.key} = {self.value}: {self.allowed}".split())


class ConfigError(UsageError):
    """One or more configuration values are wrong; all of them are listed.

    Attributes:
        faults: every fault found, in the order of the schema.
        summary: the message without the faults.
        hints: what to do: those of the faults, and else the one given.
    """

    def __init__(self, message: str, faults: Sequence[Fault] = (), *, hint: str = "") -> None:
        self.faults = tuple(faults)
        self.summary = message
        of_faults = dict.fromkeys(fault.hint for fault in faults if fault.hint)
        self.hints = tuple(of_faults) or ((hint,) if hint else ())
        super().__init__("; ".join([message, *map(str, faults)]), hint="; ".join(self.hints))


class DataError(UsageError):
    """A data set is missing, truncated, of the wrong format or too small for the request."""


class ModelError(UsageError):
    """A model cannot be built for this data, or not be trained privately or on this device."""


class RunError(CalyxError):
    """The request was right but the run failed."""


class PrivacyError(RunError):
    """The asked-for guarantee cannot be given, or cannot be accounted for."""


class BudgetExceeded(PrivacyError):
    """The next event would take the ledger over the owner's budget; it was not recorded."""


class PolicyViolation(PrivacyError):
    """An instruction asks for less privacy than the data's owner allows; nothing was done."""


class LedgerError(RunError):
    """The ledger is unreadable, altered, in use by another process or of another data set."""


class EnrolmentError(RunError):
    """A device, key, request or certificate that the other side does not accept."""


class EncryptionError(RunError):
    """A ciphertext, key, context or packed field is malformed, foreign or out of range."""


class ReleaseRefused(RunError):
    """The key authority's rules do not allow the release of this sum.

    Attributes:
        culprits: the contributors it was refused for, where they are known by name.
    """

    def __init__(self, message: str, culprits: Sequence[str] = (), *, hint: str = "") -> None:
        self.culprits = tuple(culprits)
        super().__init__(message, hint=hint)


class ProtocolError(RunError):
    """A message lacks something it must say, or says something impossible."""


class EvidenceError(RunError):
    """Evidence of an audit is missing or was altered, or the run it is about was."""


class CheckpointError(RunError):
    """A checkpoint is missing, broken or belongs to another run."""


class RoundError(RunError):
    """A round cannot be completed, for example because too few clients answer."""


class UnfitSum(RoundError):
    """A released sum that honest clients do not add up to; no step was taken along it."""


def full_text(error: BaseException) -> str:
    """An error of any kind as one line, with the hint where it has one."""
    text = error.full_text if isinstance(error, CalyxError) else str(error)
    return " ".join(text.split())


def hint_of(error: BaseException) -> str:
    """The hint of an error of any kind, for the one that is raised in its place."""
    return error.hint if isinstance(error, CalyxError) else ""
