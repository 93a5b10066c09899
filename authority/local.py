"""The key authority: used directly in simulations, behind `calyx.authority.service` in deployments.

Everything durable is in one folder::

    identity.key       Ed25519 key that signs admissions           authority.pub: its public half
    contributors.json  who is enrolled                             (calyx.authority.enrolments)
    releases.jsonl     every decision, hash-chained; the state     (calyx.authority.log)
    keys/*.key         secret keys of open runs                    (calyx.authority.keys)

A grant is in the log, on disk, before the sum is decrypted. After a crash the log is replayed; see
rule 5 of `calyx.authority.release` for why the same request is then answered again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from calyx.authority.enrolments import Enrolments
from calyx.authority.keys.identity import read_identity
from calyx.authority.keys.key_pair import KeyPair
from calyx.authority.keys.key_store import KeyStore
from calyx.authority.log.events import (
    Closed,
    Event,
    Failed,
    Granted,
    Opened,
    Refused,
    Repeated,
    names_hash,
)
from calyx.authority.log.log import AuthorityLog
from calyx.authority.log.refusal_lines import RefusalLines
from calyx.authority.opening import opening_of
from calyx.authority.release import State, apply, culprits, decide, open_run
from calyx.shared.config.schema import DEFAULT_CONTRIBUTORS, FEWEST_CONTRIBUTORS
from calyx.shared.encryption import SealedSum, SealingParameters, context_hash, unpack_sum
from calyx.shared.errors import ConfigError, EncryptionError, ReleaseRefused
from calyx.shared.host.closable import Closable
from calyx.shared.host.private_files import private_directory
from calyx.shared.protocol.authority.interface import (
    Head,
    Opening,
    Refusal,
    Released,
    ReleaseRequest,
)
from calyx.shared.protocol.signatures.signed import check_name

MAX_OPENINGS_AN_HOUR = 100

# Sent to the server instead of what was found, which may depend on the secret key.
_FAILURES = {
    Refusal.PROOF: (
        "what was sent is not the sum of the uploads with these receipts; nothing is released",
        "check the server, and continue with a new round",
    ),
    Refusal.RANGE: (
        "a contributor's values are out of bounds; nothing is released",
        "check the clients, and continue with a new round",
    ),
}


class LocalAuthority(Closable):
    """The key authority on one folder: a `calyx.shared.protocol.authority.interface.Authority`.

    Args:
        directory: its folder, made 0700 if missing.
        passphrase: encrypts every secret key on disk; the same one each time.
        min_contributors: no run with a smaller minimum is opened; at least 2.
        accept_untagged: open runs whose sums cannot be verified (CKKS): the server is trusted.
        clock: seconds since the epoch, for the log.

    Raises:
        ConfigError: a minimum below 2.
        EncryptionError: the folder is open to others, or the passphrase is wrong.
        LedgerError: the log is altered, shortened or in use.
    """

    def __init__(
        self,
        directory: Path,
        *,
        passphrase: bytes | None = None,
        min_contributors: int = DEFAULT_CONTRIBUTORS,
        accept_untagged: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if min_contributors < FEWEST_CONTRIBUTORS:
            raise ConfigError(
                f"min_contributors = {min_contributors} would release single updates",
                hint=f"use at least {FEWEST_CONTRIBUTORS}",
            )
        private_directory(directory)
        self.enrolments = Enrolments(directory)
        self._floor, self._accept_untagged = min_contributors, accept_untagged
        self._lock = threading.Lock()
        self._keys = KeyStore(directory / "keys", passphrase)
        self._openings: deque[float] = deque(maxlen=MAX_OPENINGS_AN_HOUR)
        self._state, self._refusal_lines = State(), RefusalLines()
        self._log = AuthorityLog(directory / "releases.jsonl", clock)
        try:
            for event in self._log.take_past():
                self._happened(event)
            self._identity = read_identity(directory, passphrase, has_runs=bool(self._state.runs))
            for name, run in self._state.runs.items():
                if run.is_closed:
                    self._keys.destroy(name)
        except BaseException:
            self._log.close()
            raise

    @property
    def verify_key(self) -> bytes:
        """Ed25519 key, 32 bytes, that contributors pin at their enrolment."""
        return self._identity.public_key().public_bytes_raw()

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
        """See `Authority.open_run`. Repeated, it gives the same key, sealed and signed again."""
        check_name("run", run)
        for name in contributors:
            check_name("contributor", name)
        if parameters.scheme == "none":
            raise Refusal.TERMS.error("plain sums need no key authority", hint="use bfv")
        terms = Opened(
            run=run,
            parameters_digest=parameters.digest,
            min_contributors=min_contributors,
            max_contributors=parameters.contributors,
            contributors=tuple(sorted(contributors)),
            is_tagged=parameters.scheme == "bfv",
            plan_digest=plan_digest,
            config_digest=config_digest,
        )
        with self._lock:
            self._take_over_enrolments()
            if known_head is not None and not self._log.has(*known_head):
                self._refuse(run, 0, terms.contributors, self._rolled_back(known_head))
            try:
                opened = open_run(self._state, terms, self._floor, self._accept_untagged)
            except ReleaseRefused as error:
                self._refuse(run, 0, terms.contributors, error)
            if opened is not None:
                self._check_pace(terms)
                self._keys.add(run, KeyPair.generate(parameters))
                self._record(opened)
            return opening_of(terms, self._key_pair(run), self._state, self._identity)

    def release(self, request: ReleaseRequest, chunks: Sequence[bytes]) -> Released:
        """See `Authority.release`."""
        with self._lock:
            self._take_over_enrolments()
            decision = decide(self._state, request)
            if isinstance(decision, Refused):
                self._record_refusal(decision)
                raise decision.error(culprits(self._state, request, decision))
            keys = self._key_pair(request.run)
            try:
                if self._sum_hash(keys, chunks) != request.sum_hash:
                    raise EncryptionError("the ciphertexts sent are not those of the request")
                ciphertexts = keys.read(chunks)
            except EncryptionError as error:
                refused = _refused(decision, Refusal.MALFORMED, error.full_text)
                self._record_refusal(refused)
                raise refused.error() from error
            index, head = self._record(decision)
            values = self._values(decision, request, keys, ciphertexts)
            return Released(values, index, head)

    def check(self, request: ReleaseRequest) -> None:
        """Raise, and log, what `release` would refuse without looking at the ciphertexts."""
        with self._lock:
            self._take_over_enrolments()
            decision = decide(self._state, request)
            if isinstance(decision, Refused):
                self._record_refusal(decision)
                raise decision.error(culprits(self._state, request, decision))

    def refuse_malformed(self, run: str, round: int, detail: str) -> NoReturn:
        """Log, and raise, that a request could not even be read."""
        with self._lock:
            self._refuse(run, round, (), Refusal.MALFORMED.error(detail))

    def most_receipts(self, run: str) -> int:
        """How many receipts a release of this run can have.

        Raises:
            ReleaseRefused: no such open run; this is logged.
        """
        with self._lock:
            state = self._state.runs.get(run)
            if state is None or state.is_closed:
                error = Refusal.UNKNOWN_RUN.error(f"no run {run!r} is open here")
                if state is not None:
                    error = Refusal.CLOSED_RUN.error(f"run {run!r} is closed and its key destroyed")
                self._refuse(run, 0, (), error)
            return state.terms.max_contributors

    def chunk_limits(self, run: str) -> tuple[int, int]:
        """Number of ciphertexts of a sum of this run, and the size in bytes of the largest.

        Raises:
            ReleaseRefused: no such open run.
        """
        with self._lock:
            state = self._state.runs.get(run)
            if state is None or state.is_closed:
                raise Refusal.UNKNOWN_RUN.error(f"no run {run!r} is open here")
            parameters = self._key_pair(run).parameters
            return parameters.chunks, parameters.max_chunk_bytes

    def close_run(self, run: str) -> None:
        """See `Authority.close_run`. Closing again does nothing."""
        check_name("run", run)
        with self._lock:
            state = self._state.runs.get(run)
            if state is None:
                error = Refusal.UNKNOWN_RUN.error(f"no run {run!r} was opened here")
                self._refuse(run, 0, (), error)
            if not state.is_closed:
                self._record(Closed(run))
            self._keys.destroy(run)

    def health(self) -> bool:
        """See `Authority.health`."""
        return self._log.is_usable

    def close(self) -> None:
        """Release the folder."""
        with self._lock:
            self._log.close()
            self._keys.forget()

    def _rolled_back(self, known_head: Head) -> ReleaseRefused:
        return Refusal.ROLLED_BACK.error(
            f"the server has seen a release at entry {known_head[0]} that this authority's log of "
            f"{self._log.head[0] + 1} entries does not have: it was restored from a backup, or is "
            "another authority's, and could release a round twice",
            hint="restore its newest log, or make a new authority and start a new run there",
        )

    def _record(self, *new: Event) -> tuple[int, str]:
        position = self._log.append(new)
        for event in new:
            self._happened(event)
        return position

    def _happened(self, event: Event) -> None:
        self._state = apply(self._state, event)
        self._refusal_lines.note(event)

    def _record_refusal(self, refused: Refused) -> None:
        if lines := self._refusal_lines.of(refused):
            self._record(*lines)

    def _check_pace(self, terms: Opened) -> None:
        """A new run costs a key and a line with all its contributors; both stay on disk."""
        now = time.monotonic()
        is_full = len(self._openings) == MAX_OPENINGS_AN_HOUR
        if is_full and now - self._openings[0] < 3600:
            error = Refusal.TERMS.error(
                f"{MAX_OPENINGS_AN_HOUR} runs were opened within an hour",
                hint="check the server, or wait",
            )
            self._refuse(terms.run, 0, terms.contributors, error)
        self._openings.append(now)

    def _values(
        self,
        decision: Granted | Repeated,
        request: ReleaseRequest,
        keys: KeyPair,
        ciphertexts: Sequence[Any],
    ) -> NDArray[np.int64]:
        """Decrypt what was granted, and check that it is what it should be (rules 9 and 10)."""
        is_tagged = self._state.runs[request.run].terms.is_tagged
        reason = Refusal.PROOF
        try:
            slots = keys.decrypt(ciphertexts)
            if is_tagged:
                keys.check_tags(slots, request.receipts)
                reason = Refusal.RANGE
            return unpack_sum(
                slots,
                keys.parameters,
                request.contributors,
                check="caller" if is_tagged else "count",
            )
        except EncryptionError as error:
            self._record(
                Failed(
                    decision.run,
                    decision.round,
                    decision.contributors,
                    decision.contributors_hash,
                    decision.sum_hash,
                    reason.value,
                    error.full_text,
                )
            )
            what, hint = _FAILURES[reason]
            raise reason.error(f"round {request.round}: {what}", hint=hint) from error

    def _refuse(
        self, run: str, round: int, names: tuple[str, ...], error: ReleaseRefused
    ) -> NoReturn:
        reason, _, detail = error.full_text.partition(": ")
        self._record_refusal(Refused(run, round, len(names), names_hash(names), "", reason, detail))
        raise error

    def _take_over_enrolments(self) -> None:
        if changes := self.enrolments.changes(self._state):
            self._record(*changes)

    def _sum_hash(self, keys: KeyPair, chunks: Sequence[bytes]) -> str:
        parameters, context = keys.parameters.digest, context_hash(keys.public_context())
        return SealedSum(tuple(chunks), parameters, context, 0).digest

    def _key_pair(self, run: str) -> KeyPair:
        keys = self._keys.get(run)
        if keys is None:
            # A folder restored without keys/, as docs/deploy/authority.md requires.
            gone = f"the secret key of run {run!r} is gone from this authority"
            self._refuse(run, 0, (), Refusal.CLOSED_RUN.error(gone, hint="start a new run"))
        return keys


def _refused(decision: Granted | Repeated, reason: Refusal, detail: str) -> Refused:
    return Refused(
        decision.run,
        decision.round,
        decision.contributors,
        decision.contributors_hash,
        decision.sum_hash,
        reason.value,
        detail,
    )
