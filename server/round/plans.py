"""The privacy plans of a run, from its config and the counts that its clients declared."""

from __future__ import annotations

import math
from collections.abc import Iterable

from calyx.server.roster import Member, Roster
from calyx.shared.config import Config
from calyx.shared.config.schema import MAX_BITS
from calyx.shared.errors import ConfigError, EncryptionError, Fault, PrivacyError
from calyx.shared.privacy.plan import PrivacyPlan, make_plan
from calyx.shared.protocol.sealed.messages import sum_shape

# Where rounding takes this much more noise, a wider value is worth it.
MUCH_OVERHEAD = 0.05


class Plans:
    """One plan for each declared record count; in sealed runs one for all.

    A sealed sum needs one grid and one noise, so there all clients follow the plan of the client
    with the most records. With local noise each client protects itself and has a plan of its own.

    Args:
        config: the run.
        members: the clients that have introduced themselves.
        dimension: the model's trainable parameters.
    """

    def __init__(self, config: Config, members: Iterable[Member], dimension: int) -> None:
        self._config = config
        self.is_shared = config.has_common_plan
        self._largest = max(member.declared_records for member in members)
        self._dimension = dimension
        self._shape = sum_shape(config, dimension) if config.is_sealed else None
        self._plans: dict[int, PrivacyPlan] = {}

    def of(self, member: Member) -> PrivacyPlan:
        """The plan that a client is told to follow."""
        records = self._largest if self.is_shared else member.declared_records
        if records not in self._plans:
            self._plans[records] = self._made(records)
        return self._plans[records]

    def _made(self, records: int) -> PrivacyPlan:
        try:
            return make_plan(self._config, records, self._shape)
        except PrivacyError as error:
            if self._shape is None:
                raise
            bits = self._config.secure_aggregation.bits
            raise ConfigError(
                "the noise does not fit the fields of the sealed sum",
                [Fault("secure_aggregation.bits", str(bits), *self._advice(records))],
            ) from error

    def _advice(self, records: int) -> tuple[str, str]:
        """What is allowed, and what to do."""
        bits = self.better_bits(records)
        if bits is None:
            return "no width is enough", "use fewer clients per round or raise privacy.epsilon"
        least = f"at least {bits} for {self._dimension:,} values and these clients"
        return least, f"set secure_aggregation.bits = {bits}"

    def better_bits(self, records: int) -> int | None:
        """The least width above the configured one at which rounding costs little noise."""
        for bits in range(self._config.secure_aggregation.bits + 1, MAX_BITS + 1):
            sealing = self._config.secure_aggregation.model_copy(update={"bits": bits})
            wider = self._config.model_copy(update={"secure_aggregation": sealing})
            try:
                plan = make_plan(wider, records, sum_shape(wider, self._dimension))
            except (PrivacyError, EncryptionError):
                continue
            if plan.mechanism is None or plan.mechanism.rounding_overhead < MUCH_OVERHEAD:
                return bits
        return None

    def epsilon_max(self, roster: Roster) -> float:
        """Largest epsilon any client may have spent so far, infinite without privacy."""
        if not self._config.is_private:
            return math.inf
        most: dict[PrivacyPlan, int] = {}
        for member in roster:
            plan = self.of(member)
            most[plan] = max(most.get(plan, 0), member.rounds_asked)
        return max(plan.spent(rounds).epsilon for plan, rounds in most.items())
