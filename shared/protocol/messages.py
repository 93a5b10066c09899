"""The messages of a run as typed objects.

::

    server ── query:    (nothing)          ──▶ client
    server ◀─ Introduction                 ─── client
    server ── query.proposal: Proposal     ──▶ client      once, before it is charged for a run
    server ◀─ (nothing) or a refusal       ─── client
    server ── train:    TrainInstruction   ──▶ client
    server ◀─ TrainReply or a refusal      ─── client
    server ── evaluate: arrays, round      ──▶ client      (only where metrics may be sent)
    server ◀─ EvaluateReply or a refusal   ─── client
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from calyx.shared.config import Config
from calyx.shared.config.load import digest as config_digest
from calyx.shared.errors import ProtocolError
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.protocol.arrays import Weights, digest

ARRAYS, CONFIG, METRICS, INSTRUCTION, INTRODUCTION, PROPOSAL = (
    "arrays",
    "config",
    "metrics",
    "instruction",
    "introduction",
    "proposal",
)
WEIGHT_KEY = "num-examples"
MAX_RECORDS = 10**9

_R = TypeVar("_R", ArrayRecord, ConfigRecord, MetricRecord)


@dataclass(frozen=True)
class Introduction:
    """Who a client is and which code it runs.

    Attributes:
        client: stable name of the client; the partition number in simulations.
        declared_records: its public record count; 0 where counts are nominal and stay private.
        version: version of its calyx-fl.
        code_hash: see `calyx.shared.protocol.identity.code_hash`.
    """

    client: str
    declared_records: int
    version: str
    code_hash: str

    def to_content(self) -> RecordDict:
        """As the content of a message."""
        fields = ConfigRecord(
            {
                "client": self.client,
                "declared-records": self.declared_records,
                "version": self.version,
                "code-hash": self.code_hash,
            }
        )
        return RecordDict({INTRODUCTION: fields})

    @classmethod
    def from_content(cls, content: RecordDict) -> Introduction:
        """Read and check an introduction.

        Raises:
            ProtocolError: a field is missing or impossible.
        """
        record = _record(content, INTRODUCTION, ConfigRecord)
        count = _field(record, "declared-records", int)
        if not 0 <= count <= MAX_RECORDS:
            raise ProtocolError(
                f"a client declares {count} records; 0 to {MAX_RECORDS} are allowed"
            )
        name = _field(record, "client", str)
        if not name or len(name) > 100 or not name.isprintable():
            raise ProtocolError("a client's name must be 1 to 100 printable characters")
        return cls(
            name,
            count,
            _field(record, "version", str)[:50],
            _field(record, "code-hash", str)[:64],
        )


@dataclass(frozen=True)
class Proposal:
    """All that a run will ask of one client, before the first round of it is asked for.

    Attributes:
        run: identifier of the run.
        plan: this client's privacy plan.
        rounds_left: rounds of the run that are still to come, at most the plan's.
    """

    run: str
    plan: PrivacyPlan
    rounds_left: int

    def to_content(self) -> RecordDict:
        """As the content of a message."""
        fields = {"run": self.run, "plan": self.plan.to_json(), "rounds-left": self.rounds_left}
        return RecordDict({PROPOSAL: ConfigRecord(fields)})  # type: ignore[arg-type]

    @classmethod
    def from_content(cls, content: RecordDict) -> Proposal:
        """Read a proposal; anything missing or out of range is refused.

        Raises:
            ProtocolError: a field is missing, of the wrong type or out of range.
            PrivacyError: the plan is not usable.
        """
        record = _record(content, PROPOSAL, ConfigRecord)
        plan = PrivacyPlan.from_json(_field(record, "plan", str))
        rounds_left = _field(record, "rounds-left", int)
        if not 1 <= rounds_left <= plan.rounds:
            raise ProtocolError(
                f"{rounds_left} rounds are left of a plan for {plan.rounds}, which is impossible"
            )
        return cls(_field(record, "run", str), plan, rounds_left)


@dataclass(frozen=True)
class TrainInstruction:
    """One client's order for one round.

    Attributes:
        run: identifier of the run, for the client's ledger.
        round: counted from 1.
        plan: this client's privacy plan.
        proximal_mu: FedProx weight, 0 for none.
    """

    run: str
    round: int
    plan: PrivacyPlan
    proximal_mu: float

    def to_record(self) -> ConfigRecord:
        """As a record that goes beside the arrays."""
        return ConfigRecord(
            {
                "run": self.run,
                "round": self.round,
                "plan": self.plan.to_json(),
                "proximal-mu": self.proximal_mu,
            }
        )

    @classmethod
    def from_content(cls, content: RecordDict) -> TrainInstruction:
        """Read an instruction; anything missing or out of range is refused.

        Raises:
            ProtocolError: a field is missing or of the wrong type.
            PrivacyError: the plan is not usable.
        """
        record = _record(content, INSTRUCTION, ConfigRecord)
        server_round, mu = _field(record, "round", int), _field(record, "proximal-mu", float)
        if server_round < 1 or not 0 <= mu < math.inf:
            raise ProtocolError(f"round {server_round} or proximal mu {mu} is out of range")
        return cls(
            _field(record, "run", str),
            server_round,
            PrivacyPlan.from_json(_field(record, "plan", str)),
            mu,
        )

    def digest(self, config: Config, weights: Weights) -> str:
        """SHA-256 over everything that determines the client's answer but its own data.

        Two instructions with equal digests, given to the same seeded client, produce the same
        bytes. The run's name is not part of it.
        """
        state = hashlib.sha256()
        parts = (str(self.round), self.plan.digest, repr(self.proximal_mu), config_digest(config))
        for part in (*parts, digest(weights)):
            state.update(len(part).to_bytes(4, "big") + part.encode())
        return state.hexdigest()


def train_reply(
    arrays: ArrayRecord, declared_records: int, metrics: dict[str, float]
) -> RecordDict:
    """A client's update: new weights and the public weight of its vote."""
    return RecordDict(
        {ARRAYS: arrays, METRICS: MetricRecord({WEIGHT_KEY: declared_records, **metrics})}
    )


def evaluate_reply(loss: float, accuracy: float, records: int) -> RecordDict:
    """A client's exact metrics; only sent where the plan allows it."""
    return RecordDict(
        {METRICS: MetricRecord({WEIGHT_KEY: records, "loss": loss, "accuracy": accuracy})}
    )


def read_arrays(content: RecordDict) -> ArrayRecord:
    """The one array record of a message.

    Raises:
        ProtocolError: there is none, or more than one.
    """
    if list(content.array_records) != [ARRAYS]:
        raise ProtocolError("the message must hold exactly one array record, named 'arrays'")
    return content.array_records[ARRAYS]


def read_metrics(content: RecordDict) -> dict[str, float]:
    """The one metric record of a reply as finite numbers.

    Raises:
        ProtocolError: it is missing, or a value is a list, NaN or infinite.
    """
    if list(content.metric_records) != [METRICS]:
        raise ProtocolError("the reply must hold exactly one metric record, named 'metrics'")
    metrics: dict[str, float] = {}
    for key, value in content.metric_records[METRICS].items():
        if isinstance(value, list) or not math.isfinite(value):
            raise ProtocolError(f"metric {key!r} must be one finite number")
        metrics[key] = value
    return metrics


def _record(content: RecordDict, key: str, kind: type[_R]) -> _R:
    record = content.get(key)
    if not isinstance(record, kind):
        raise ProtocolError(f"the message lacks its {key!r} record")
    return record


def _field(record: ConfigRecord, key: str, kind: type[Any]) -> Any:
    value = record.get(key)
    if type(value) is not kind:
        raise ProtocolError(f"field {key!r} must be of type {kind.__name__}")
    return value
