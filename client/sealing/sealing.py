"""Sealing on the client: accept the authority's offer once, then seal a vector a round.

The vector is rotated (a public rotation that makes coordinates similar in size), put on the plan's
integer grid, noised, tagged and encrypted with the public key. What leaves the device is
ciphertext.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from calyx.client.sealing.identity import ContributorIdentity
from calyx.client.sealing.kept_reply import KeptReply, ReplyKey
from calyx.client.sealing.terms import SealingTerms
from calyx.shared.config import Config
from calyx.shared.encryption import PublicSealer, SealingParameters, pack
from calyx.shared.encryption.quantise import dithered_rounding
from calyx.shared.errors import PolicyViolation, ProtocolError
from calyx.shared.host.private_files import replace_file
from calyx.shared.privacy.noise import NoiseSource
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.protocol.sealed.admission import Admission
from calyx.shared.protocol.sealed.messages import SealingOffer, sealed_reply
from calyx.shared.protocol.sealed.receipts import Receipt, fresh_nonce
from calyx.shared.protocol.sealed.sum_coding import SumCoding
from calyx.shared.protocol.sealed.tags import TagKeys
from calyx.shared.protocol.signatures.signed import canonical

# Runs whose admission is kept: a device is in one or two at a time.
_MOST_ADMISSIONS = 20


@dataclass(frozen=True)
class SealingState:
    """Where a client keeps what it has accepted, and the authority it trusts.

    Attributes:
        directory: a folder of its own.
        client: its name.
        identity_path: its private keys.
        authority_key: the key authority's Ed25519 key, pinned by the owner, 32 bytes.
    """

    directory: Path
    client: str
    identity_path: Path
    authority_key: bytes

    def accept(self, offer: SealingOffer, config: Config, owners_least: int) -> None:
        """Check an offer and keep it for the rounds of its run.

        Args:
            offer: as the server brought it.
            config: the run as the server describes it.
            owners_least: the owner's minimum of contributors; 0 in a simulation.

        Raises:
            ProtocolError: the authority did not sign it for this client.
            PolicyViolation: its terms are other or weaker than the run's or the owner's.
        """
        admission = offer.admission
        terms = SealingTerms.of(offer.run, self.client, config, offer.parameters, owners_least)
        terms.check(admission)
        self._opened(admission, offer.public_context)
        PublicSealer(offer.parameters, offer.public_context)  # refuses a context with a secret key
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fields = {"parameters": offer.parameters.to_json(), "admission": admission.to_json()}
        replace_file(self._path(offer.run, "context"), offer.public_context)
        replace_file(self._path(offer.run, "json"), json.dumps(fields).encode())
        self._forget_old()

    def check(self, terms: SealingTerms) -> None:
        """Check, before a charge, that the kept admission is the authority's and says what it must.

        Raises:
            PolicyViolation: the client was not admitted, or on other or weaker terms; or the
                authority did not sign for this client what was kept, which no further round mends.
        """
        try:
            admission, context = self._admitted(terms.run)
            terms.check(admission)
            self._opened(admission, context)
        except ProtocolError as error:
            raise PolicyViolation(
                f"what was kept of run {terms.run!r} cannot be used: {error}",
                hint=error.hint,
            ) from None

    def seal(self, values: NDArray[np.int64], server_round: int, terms: SealingTerms) -> RecordDict:
        """Seal integers of shape (length,) for one round of a run it was admitted to.

        Raises: as `check`, which is repeated: the admission may have been replaced since.
        """
        run, expected = terms.run, terms.parameters
        admission, context = self._admitted(run)
        terms.check(admission)
        tags = self._opened(admission, context)
        identity = ContributorIdentity.load(self.identity_path)
        slots, nonce = pack(values, expected), fresh_nonce()
        if admission.is_tagged:
            slots = tags.tagged(slots, expected.plain_modulus, server_round, nonce)
        sealed = PublicSealer(expected, context).seal_slots(slots)
        receipt = Receipt(
            run, server_round, self.client, expected.digest, sealed.digest, nonce
        ).signed(identity.signing)
        return sealed_reply(sealed, receipt)

    def sent_before(self, run: str, server_round: int, instruction: str) -> RecordDict | None:
        """The reply this device has made to exactly this instruction, if it still has it.

        Raises:
            PolicyViolation: the client was not admitted to the run.
        """
        return self._kept.load(self._reply_key(run, server_round, instruction))

    def keep(self, reply: RecordDict, run: str, server_round: int, instruction: str) -> None:
        """Keep a reply for `sent_before`; before it is sent."""
        self._kept.save(self._reply_key(run, server_round, instruction), reply)

    @property
    def _kept(self) -> KeptReply:
        return KeptReply(self.directory / f"{self._prefix}.last-reply")

    def _reply_key(self, run: str, server_round: int, instruction: str) -> ReplyKey:
        admission, _ = self._admitted(run)
        parameters, context = admission.parameters_digest, admission.context_hash
        return ReplyKey(run, server_round, instruction, parameters, context)

    def _admitted(self, run: str) -> tuple[Admission, bytes]:
        try:
            fields = json.loads(self._path(run, "json").read_bytes())
            context = self._path(run, "context").read_bytes()
            text = fields["admission"]
        except (OSError, ValueError, KeyError, TypeError):
            raise PolicyViolation(f"this client was not admitted to sealed run {run!r}") from None
        return Admission.from_json(text), context

    def _opened(self, admission: Admission, context: bytes) -> TagKeys:
        sealing = ContributorIdentity.load(self.identity_path).sealing
        return admission.open(sealing, self.authority_key, context)

    def _forget_old(self) -> None:
        """Keep only the newest admissions: a server can open as many runs as it likes.

        A client that is still in an older run refuses there, uncharged, until it gets a new offer.
        """
        kept = [
            (path.stat().st_mtime_ns, path)
            for path in self.directory.glob(f"{self._prefix}-*.json")
        ]
        for _, path in sorted(kept)[:-_MOST_ADMISSIONS]:
            path.unlink(missing_ok=True)
            path.with_suffix(".context").unlink(missing_ok=True)

    @property
    def _prefix(self) -> str:
        # A name can be longer than a file's, and simulated clients share a folder.
        return hashlib.sha256(canonical("admission-files", self.client)).hexdigest()[:32]

    def _path(self, run: str, suffix: str) -> Path:
        # The run's name comes from the server: it must not choose a path, nor share another's.
        name = hashlib.sha256(canonical("admission-file", run)).hexdigest()
        return self.directory / f"{self._prefix}-{name}.{suffix}"


def integers_to_seal(
    vector: NDArray[np.float64],
    config: Config,
    plan: PrivacyPlan,
    server_round: int,
    noise: NoiseSource,
) -> tuple[NDArray[np.int64], SealingParameters]:
    """Put a vector on the run's integer grid and add this client's share of the noise.

    Args:
        vector: float64 (dimension,): a clipped sum of gradients, a clipped update, or for runs
            without distributed noise a weighted update.

    Returns:
        int64 (dimension,) within the value bound, and the parameters to seal it with.
    """
    coding = SumCoding.of(config, plan, len(vector), server_round)
    rounded = dithered_rounding(coding.scaled(vector), noise.generator)
    if plan.mechanism is not None:
        rounded = rounded + plan.mechanism.noise(noise.generator)
    return rounded, coding.parameters
