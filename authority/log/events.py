"""The events of a key authority. The log is a list of them, and the rules' state follows from it.

The contributors of a decision are kept as a number and a hash (`names_hash`): the rules need the
names of a run once, in its terms, and with a list of them for every round the log of a run with
thousands of contributors would grow by megabytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from calyx.shared.errors import ReleaseRefused
from calyx.shared.protocol.authority.interface import Refusal
from calyx.shared.protocol.signatures.signed import canonical


def names_hash(names: Iterable[str]) -> str:
    """SHA-256, hex, over names in any order: anyone who has the list can compare."""
    return hashlib.sha256(canonical("contributors", *sorted(names))).hexdigest()


@dataclass(frozen=True)
class Enrolled:
    """A contributor's keys are known from now on."""

    name: str
    verify_key: str
    seal_key: str


@dataclass(frozen=True)
class Revoked:
    """A contributor no longer counts."""

    name: str


@dataclass(frozen=True)
class Opened:
    """A run and its terms.

    Attributes:
        plan_digest: of the privacy plan that all contributors share; empty: each has its own.
        config_digest: of the run's configuration; empty in entries of a version that bound neither
            (rule 1 of `calyx.authority.release`).
    """

    run: str
    parameters_digest: str
    min_contributors: int
    max_contributors: int
    contributors: tuple[str, ...]
    is_tagged: bool
    plan_digest: str = ""
    config_digest: str = ""


@dataclass(frozen=True)
class Granted:
    """A sum is about to be decrypted; written before it is."""

    run: str
    round: int
    contributors: int
    contributors_hash: str
    sum_hash: str
    request: str


@dataclass(frozen=True)
class Repeated:
    """The same sum is about to be decrypted again for the same request."""

    run: str
    round: int
    contributors: int
    contributors_hash: str
    sum_hash: str
    request: str


@dataclass(frozen=True)
class Failed:
    """A granted sum that turned out to be invalid (rules 9 and 10); nothing was released."""

    run: str
    round: int
    contributors: int
    contributors_hash: str
    sum_hash: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Refused:
    """A request that the rules do not allow; changes nothing. Round 0: not about a round."""

    run: str
    round: int
    contributors: int
    contributors_hash: str
    sum_hash: str
    reason: str
    detail: str

    def error(self, culprits: tuple[str, ...] = ()) -> ReleaseRefused:
        """What the sender gets."""
        return Refusal(self.reason).error(self.detail, culprits)


@dataclass(frozen=True)
class MoreRefused:
    """The refusals of a run without a line of their own; see `calyx.authority.log.refusal_lines`.

    Run "": of runs that were never opened here.
    """

    run: str
    count: int


@dataclass(frozen=True)
class Closed:
    """A run was closed and its key destroyed."""

    run: str


@dataclass(frozen=True)
class Recovered:
    """The log's last line, cut short by a crash, was moved away; changes nothing."""

    torn_bytes: int
    torn_hash: str


@dataclass(frozen=True)
class Witnessed:
    """The head of a run, or of its `audit`-th audit, was signed (`calyx.authority.log.witness`)."""

    run: str
    run_head: str
    audit_head: str
    audit: int


Event = (
    Enrolled
    | Revoked
    | Opened
    | Granted
    | Repeated
    | Failed
    | Refused
    | MoreRefused
    | Closed
    | Recovered
    | Witnessed
)
