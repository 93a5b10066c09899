"""Sealing on the client: accept the authority's offer once, then seal a vector a round.

The vector is rotated (public, so that coordinates are of one size), put on the plan's integer
grid, noised, tagged and encrypted with the public key. What leaves the device is ciphertext.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from client.identity import ContributorIdentity
from client.kept_reply import KeptReply, Occasion
from shared.config import Config
from shared.encryption import PublicSealer, SealingParameters, pack
from shared.encryption.quantise import Grid, dithered_rounding
from shared.errors import PolicyViolation, ProtocolError
from shared.privacy.noise import NoiseSource
from shared.privacy.plan import PrivacyPlan
from shared.privacy.rotation import Rotation
from shared.protocol.admission import Admission
from shared.protocol.receipts import Receipt, fresh_nonce
from shared.protocol.sealing import SealingOffer, rotation_seed, sealed_reply, sealing_parameters


@dataclass(frozen=True)
class SealingState:
    """Where a client keeps what it accepted, and whom it trusts.

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

    def accept(self, offer: SealingOffer, config: Config) -> None:
        """Check an offer and keep it for the rounds of its run.

        Raises:
            ProtocolError: it is not the authority's word to this client.
            PolicyViolation: its terms are weaker than the run's.
        """
        admission = offer.admission
        if (admission.run, admission.contributor) != (offer.run, self.client):
            raise ProtocolError("the sealing offer is for another run or client")
        if admission.parameters_digest != offer.parameters.digest:
            raise ProtocolError("the sealing offer's parameters are not those the authority signed")
        wanted = config.secure_aggregation.min_contributors
        if admission.min_contributors < wanted:
            raise PolicyViolation(
                f"the authority would release sums of {admission.min_contributors} clients, the "
                f"run promises {wanted}"
            )
        identity = ContributorIdentity.load(self.identity_path)
        admission.open(identity.sealing, self.authority_key, offer.public_context)
        PublicSealer(offer.parameters, offer.public_context)  # refuses a context with a secret key
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fields = {"parameters": offer.parameters.to_json(), "admission": admission.to_json()}
        _write(self._path(offer.run, "context"), offer.public_context)
        _write(self._path(offer.run, "json"), json.dumps(fields).encode())

    def seal(
        self, values: NDArray[np.int64], run: str, server_round: int, expected: SealingParameters
    ) -> RecordDict:
        """Seal integers of shape (length,) for one round of a run it was admitted to.

        Raises:
            PolicyViolation: it was not admitted, or on other parameters.
        """
        admission, context = self._admitted(run)
        if admission.parameters_digest != expected.digest:
            raise PolicyViolation("the run's sealing parameters are not those of the admission")
        identity = ContributorIdentity.load(self.identity_path)
        tags = admission.open(identity.sealing, self.authority_key, context)
        slots, nonce = pack(values, expected), fresh_nonce()
        if admission.is_tagged:
            slots = tags.tagged(slots, expected.plain_modulus, server_round, nonce)
        sealed = PublicSealer(expected, context).seal_slots(slots)
        receipt = Receipt(
            run, server_round, self.client, expected.digest, sealed.digest, nonce
        ).signed(identity.signing)
        return sealed_reply(sealed, receipt)

    def sent_before(self, run: str, server_round: int, instruction: str) -> RecordDict | None:
        """The reply this device has made to this very instruction, if it still has it.

        Raises:
            PolicyViolation: it was not admitted to the run.
        """
        return self._kept.load(self._occasion(run, server_round, instruction))

    def keep(self, reply: RecordDict, run: str, server_round: int, instruction: str) -> None:
        """Keep a reply for `sent_before`; before it is sent."""
        self._kept.save(self._occasion(run, server_round, instruction), reply)

    @property
    def _kept(self) -> KeptReply:
        return KeptReply(self.directory / f"{self.client.encode().hex()}.last-reply")

    def _occasion(self, run: str, server_round: int, instruction: str) -> Occasion:
        admission, _ = self._admitted(run)
        parameters, context = admission.parameters_digest, admission.context_hash
        return Occasion(run, server_round, instruction, parameters, context)

    def _admitted(self, run: str) -> tuple[Admission, bytes]:
        try:
            fields = json.loads(self._path(run, "json").read_bytes())
            context = self._path(run, "context").read_bytes()
        except OSError:
            raise PolicyViolation(f"this client was not admitted to sealed run {run!r}") from None
        return Admission.from_json(fields["admission"]), context

    def _path(self, run: str, suffix: str) -> Path:
        # The run's name comes from the server: it must not choose a path.
        return self.directory / f"{run.encode().hex()[:120]}-{self.client.encode().hex()}.{suffix}"


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
    parameters = sealing_parameters(config, plan, len(vector))
    rotated = Rotation(len(vector), rotation_seed(config, server_round)).forward(vector)
    if plan.mechanism is None:
        grid = Grid(
            config.secure_aggregation.clamp / parameters.value_bound, parameters.value_bound
        )
        return dithered_rounding(grid.scaled(rotated), noise.generator), parameters
    mechanism = plan.mechanism
    grid = Grid(mechanism.step, mechanism.clamp)
    rounded = dithered_rounding(grid.scaled(rotated), noise.generator)
    return rounded + mechanism.noise(noise.generator), parameters


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    temporary.write_bytes(content)
    temporary.replace(path)
