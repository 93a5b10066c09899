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

Each message says in one line what was wrong, where, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class CalyxError(Exception):
    """Base of every error raised on purpose; `exit_code` is what the command returns."""

    exit_code = 1


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
    """

    key: str
    value: str
    allowed: str

    def __str__(self) -> str:
        # One line, whatever the user wrote.
        return " ".join(f"{self.key} = {self.value}: {self.allowed}".split())


class ConfigError(UsageError):
    """One or more configuration values are wrong; all of them are listed.

    Attributes:
        faults: every fault found, in the order of the schema.
    """

    def __init__(self, message: str, faults: Sequence[Fault] = ()) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join([message, *map(str, self.faults)]) if faults else message)


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

    def __init__(self, message: str, culprits: Sequence[str] = ()) -> None:
        self.culprits = tuple(culprits)
        super().__init__(message)


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
