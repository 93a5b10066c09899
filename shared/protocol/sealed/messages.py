"""What a sealed run needs beyond a plain one: its parameters, the offer, the sealed reply.

::

    authority ── public context, one admission a client ──▶ server
    server ── query.sealing: SealingOffer ──▶ client          once a run
    client ── train reply: ciphertexts + Receipt ──▶ server   each round

From then on the context is only named by its hash.
"""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import ConfigRecord, RecordDict

from calyx.shared.config import Config
from calyx.shared.config.load import digest as config_digest
from calyx.shared.encryption import (
    SealedVector,
    SealingParameters,
    derive_parameters,
    largest_value_bound,
    value_bound_of_bits,
)
from calyx.shared.errors import EncryptionError, ProtocolError
from calyx.shared.privacy.plan import PrivacyPlan, SumShape
from calyx.shared.protocol.sealed.admission import Admission
from calyx.shared.protocol.sealed.receipts import Receipt

OFFER, SEALED = "sealing-offer", "sealed"


def sum_shape(config: Config, dimension: int) -> SumShape:
    """What the noise of a sealed run has to fit into.

    ``secure_aggregation.bits`` decides how many values share a slot; since whatever fits beside
    them costs nothing, all of the room is then used.
    """
    sealing = config.secure_aggregation
    if not config.is_sealed:
        raise EncryptionError("a run without sealing has no sealed sum")
    contributors, bits = config.cohort_size, value_bound_of_bits(sealing.bits)
    fitted = derive_parameters(
        scheme=sealing.scheme, contributors=contributors, value_bound=bits, length=dimension
    )
    bound = bits
    if sealing.scheme == "bfv":
        widest = largest_value_bound(
            contributors=contributors, fields_per_slot=fitted.fields_per_slot
        )
        bound = max(bits, widest)
    return SumShape(dimension, bound)


def sealing_parameters(config: Config, plan: PrivacyPlan, dimension: int) -> SealingParameters:
    """The encryption that carries the sums of this plan."""
    shape = sum_shape(config, dimension)
    bound = plan.mechanism.value_bound if plan.mechanism else shape.value_bound
    return derive_parameters(
        scheme=config.secure_aggregation.scheme,
        contributors=config.cohort_size,
        value_bound=bound,
        length=dimension,
    )


def common_plan_digest(plan: PrivacyPlan) -> str:
    """Digest of the plan that all contributors of a sum share; empty where each has its own.

    With local noise a client protects itself, whatever the others were told. Everything else in a
    sealed sum is shared: the noise that protects one client is in the uploads of the others.
    """
    return "" if plan.noise == "local" else plan.digest


def rotation_seed(config: Config, server_round: int) -> bytes:
    """Public seed of a round's rotation; the same for all who share the configuration."""
    return f"{config_digest(config)}/{server_round}".encode()


@dataclass(frozen=True)
class SealingOffer:
    """All that one client needs to seal its updates in one run.

    Attributes:
        run: identifier of the run.
        parameters: how to pack and encrypt.
        public_context: the authority's public key, serialised by TenSEAL.
        admission: the authority's signed word to this client.
    """

    run: str
    parameters: SealingParameters
    public_context: bytes
    admission: Admission

    def to_content(self) -> RecordDict:
        """As the content of a message."""
        fields = ConfigRecord(
            {
                "run": self.run,
                "parameters": self.parameters.to_json(),
                "context": self.public_context,
                "admission": self.admission.to_json(),
            }
        )
        return RecordDict({OFFER: fields})

    @classmethod
    def from_content(cls, content: RecordDict) -> SealingOffer:
        """Read an offer; who made it is checked by `Admission.open`.

        Raises:
            ProtocolError: a field is missing or malformed.
            EncryptionError: the parameters are not those derived.
        """
        record = content.get(OFFER)
        if not isinstance(record, ConfigRecord):
            raise ProtocolError("the message lacks its sealing offer")
        run, context = record.get("run"), record.get("context")
        parameters, admission = record.get("parameters"), record.get("admission")
        if not (
            isinstance(run, str)
            and isinstance(context, bytes)
            and isinstance(parameters, str)
            and isinstance(admission, str)
        ):
            raise ProtocolError("the sealing offer lacks a field")
        return cls(
            run, SealingParameters.from_json(parameters), context, Admission.from_json(admission)
        )


def sealed_reply(sealed: SealedVector, receipt: Receipt) -> RecordDict:
    """A client's sealed update: ciphertexts and receipt, no number beside them."""
    record = ConfigRecord(
        {
            "chunks": list(sealed.chunks),
            "parameters": sealed.parameters,
            "context": sealed.context,
            "receipt": receipt.to_json(),
        }
    )
    return RecordDict({SEALED: record})


def read_sealed_reply(content: RecordDict) -> tuple[SealedVector, Receipt]:
    """Read a sealed update; what it holds is checked when it is added.

    Raises:
        ProtocolError: it is not a sealed update and nothing else.
    """
    if list(content) != [SEALED]:
        raise ProtocolError("a sealed update must hold one record, named 'sealed'")
    record = content[SEALED]
    chunks = record.get("chunks") if isinstance(record, ConfigRecord) else None
    names = [record.get(k) for k in ("parameters", "context", "receipt")] if chunks else []
    if (
        not isinstance(chunks, list)
        or not all(isinstance(chunk, bytes) for chunk in chunks)
        or not all(isinstance(name, str) for name in names)
    ):
        raise ProtocolError("the sealed update lacks its ciphertexts, digests or receipt")
    parameters, context, receipt = (str(name) for name in names)
    sealed = SealedVector(tuple(bytes(c) for c in chunks), parameters, context)  # type: ignore[arg-type]
    return sealed, Receipt.from_json(receipt)
