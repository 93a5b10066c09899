"""The key authority as the aggregation server sees it.

`calyx.authority.local.LocalAuthority` is the one in process,
`calyx.shared.protocol.authority.client.RemoteAuthority` reaches it over gRPC, with certificates on
both sides. ::

    with RemoteAuthority("authority.example:9443", ca, certificate, key) as authority:
        opening = authority.open_run(
            run, parameters, min_contributors, names, plan_digest, config_digest, known_head
        )
        ...                                   # hand out opening.public_context and admissions
        released = authority.release(request, sum_chunks)

All three calls may be repeated after a lost reply: the same terms give the same key, the same
request gives the same values. A *different* request for a released round is refused, so a server
keeps the sum and the receipts until it has used the values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from calyx.shared.encryption import SealedSum, SealingParameters
from calyx.shared.errors import ReleaseRefused
from calyx.shared.protocol.sealed.admission import Admission
from calyx.shared.protocol.sealed.receipts import Receipt
from calyx.shared.protocol.signatures.signed import canonical

# Index and hash of an entry in the authority's log.
Head = tuple[int, str]


class Refusal(StrEnum):
    """Why the authority did not do what it was asked; the first word of the error's text."""

    MALFORMED = "malformed"
    UNKNOWN_RUN = "unknown-run"
    CLOSED_RUN = "closed-run"
    SUSPENDED_RUN = "suspended-run"
    TERMS = "terms"
    ROUND_PASSED = "round-passed"
    ALREADY_RELEASED = "already-released"
    COUNT = "count"
    TOO_FEW = "too-few"
    DUPLICATE = "duplicate"
    NOT_ENROLLED = "not-enrolled"
    REVOKED = "revoked"
    NOT_IN_RUN = "not-in-run"
    FOREIGN_RECEIPT = "foreign-receipt"
    SIGNATURE = "signature"
    PROOF = "proof"
    RANGE = "range"
    ROLLED_BACK = "rolled-back"

    def error(self, detail: str, culprits: Sequence[str] = (), *, hint: str = "") -> ReleaseRefused:
        """The refusal as an error; without `culprits` the sum would not be refused for this."""
        return ReleaseRefused(f"{self.value}: {detail}", culprits, hint=hint)

    @classmethod
    def of(cls, error: ReleaseRefused) -> Refusal:
        """The reason in an error made by `error`."""
        return cls(str(error).partition(":")[0])


@dataclass(frozen=True)
class Opening:
    """What opening a run gives.

    Attributes:
        public_context: TenSEAL context without a secret key; for every contributor.
        admissions: by contributor; each is for that contributor only.
        contributor_keys: Ed25519 key that each contributor's receipts are verified with, 32 bytes.
    """

    public_context: bytes
    admissions: Mapping[str, Admission]
    contributor_keys: Mapping[str, bytes]


@dataclass(frozen=True)
class ReleaseRequest:
    """What the authority decides about: everything but the ciphertexts themselves.

    Attributes:
        run, round: whose sum it is.
        contributors: how many uploads the server says it added.
        receipts: one for each of them, in any order.
        sum_hash: `SealedSum.digest`.
    """

    run: str
    round: int
    contributors: int
    receipts: tuple[Receipt, ...]
    sum_hash: str

    @classmethod
    def of(
        cls, run: str, round: int, receipts: Sequence[Receipt], sealed: SealedSum
    ) -> ReleaseRequest:
        """The request for `sealed`, a sum of the uploads that `receipts` are for."""
        return cls(run, round, sealed.contributors, tuple(receipts), sealed.digest)

    @property
    def digest(self) -> str:
        """SHA-256, hex; equal for requests that differ in the order of receipts only."""
        signed = sorted(canonical("r", r.signed_bytes(), r.signature) for r in self.receipts)
        head = (self.run, self.round, self.contributors, self.sum_hash)
        return hashlib.sha256(canonical("release", *head, *signed)).hexdigest()


@dataclass(frozen=True)
class Released:
    """A released sum.

    Attributes:
        values: the sums of the contributors' values; int64.
        log_index, log_hash: where the release stands in the authority's log. Kept by the
            server they are a witness: a log that was shortened later no longer has that entry.
    """

    values: NDArray[np.int64]
    log_index: int
    log_hash: str


class Authority(Protocol):
    """The party that holds the secret key and releases only sums."""

    def open_run(
        self,
        run: str,
        parameters: SealingParameters,
        min_contributors: int,
        contributors: Sequence[str],
        plan_digest: str,
        config_digest: str,
        known_head: Head | None = None,
    ) -> Opening:
        """Make the key of a run, or give it again for the same terms.

        Args:
            run: its identifier.
            parameters: how vectors are packed and encrypted.
            min_contributors: no sum of fewer will be released.
            contributors: their names at the authority.
            plan_digest: see `calyx.shared.protocol.sealed.messages.common_plan_digest`.
            config_digest: of the run's configuration.
            known_head: of the newest release of this run that the server got; None if it got none.

        Raises:
            ReleaseRefused: other terms than before, unknown contributors, a closed run, or a log
                that does not have `known_head`.
        """
        ...

    def release(self, request: ReleaseRequest, chunks: Sequence[bytes]) -> Released:
        """Decrypt one sum, if the rules allow it.

        Raises:
            ReleaseRefused: they do not; `Refusal.of` says why.
        """
        ...

    def close_run(self, run: str) -> None:
        """Destroy the key of a run.

        Raises:
            ReleaseRefused: no such run.
        """
        ...

    def health(self) -> bool:
        """Whether it can answer requests now."""
        ...
