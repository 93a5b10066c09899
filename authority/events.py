"""What can happen at a key authority. The log is a list of these, and the rules' state follows."""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import ReleaseRefused
from shared.protocol.authority_client import Refusal


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
    """A run and its terms."""

    run: str
    parameters_digest: str
    min_contributors: int
    max_contributors: int
    contributors: tuple[str, ...]
    is_tagged: bool


@dataclass(frozen=True)
class Granted:
    """A sum will be decrypted now; written before it is."""

    run: str
    round: int
    contributors: tuple[str, ...]
    sum_hash: str
    request: str


@dataclass(frozen=True)
class Repeated:
    """The same sum will be decrypted again for the same request."""

    run: str
    round: int
    contributors: tuple[str, ...]
    sum_hash: str
    request: str


@dataclass(frozen=True)
class Failed:
    """A granted sum that turned out to be none (rules 9 and 10); nothing was released."""

    run: str
    round: int
    contributors: tuple[str, ...]
    sum_hash: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Refused:
    """A request that the rules do not allow; changes nothing. Round 0: not about a round."""

    run: str
    round: int
    contributors: tuple[str, ...]
    sum_hash: str
    reason: str
    detail: str

    def error(self, culprits: tuple[str, ...] = ()) -> ReleaseRefused:
        """What the sender gets."""
        return Refusal(self.reason).error(self.detail, culprits)


@dataclass(frozen=True)
class Closed:
    """A run whose key is destroyed."""

    run: str


@dataclass(frozen=True)
class Recovered:
    """A last line of the log that a crash had cut short was moved away; changes nothing."""

    torn_bytes: int
    torn_hash: str


Event = Enrolled | Revoked | Opened | Granted | Repeated | Failed | Refused | Closed | Recovered
