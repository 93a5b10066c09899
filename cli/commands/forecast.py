"""What a run will cost in privacy and traffic, worked out before anything is trained."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from calyx.cli.terminal.chart import thinned
from calyx.cli.terminal.formatting import NO_PRIVACY, delta_warning
from calyx.shared.config import Config
from calyx.shared.encryption.parameters import SealingParameters
from calyx.shared.privacy.accounting import Spent
from calyx.shared.privacy.epsilon_text import delta_text, promise_text, whom_text
from calyx.shared.privacy.plan import PrivacyPlan

if TYPE_CHECKING:
    from calyx.server.round.plans import Plans

_BYTES_PER_PARAMETER = 4
_CURVE_POINTS = 16


@dataclass(frozen=True)
class ClientPlan:
    """The plan of all clients with the same record count.

    Attributes:
        plan: what each of them does.
        clients: how many they are.
        round_cost: epsilon of one round.
        total_cost: epsilon of the whole run for a client that is asked every round.
    """

    plan: PrivacyPlan
    clients: int
    round_cost: Spent
    total_cost: Spent

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; sampling is what the accounting rests on, null without privacy."""
        event = self.plan.round_event if self.plan.is_private else None
        return {
            "records": self.plan.declared_records,
            "clients": self.clients,
            "sampling": event.sampling if event else None,
            "sampling_rate": event.sampling_rate if event else None,
            "expected_batch_size": self.plan.expected_batch_size,
            "steps_per_round": self.plan.steps_per_round,
            "steps": self.plan.steps_per_round * self.plan.rounds,
            "noise_multiplier": self.plan.noise_multiplier,
            "epsilon_round_pld": self.round_cost.pld,
            "epsilon_round_rdp": self.round_cost.rdp,
            "epsilon_pld": self.total_cost.pld,
            "epsilon_rdp": self.total_cost.rdp,
        }


@dataclass(frozen=True)
class Forecast:
    """Privacy and traffic of a run.

    Attributes:
        config: the run.
        parameters: values in one model.
        train_records: over all clients.
        plans: one entry for each record count, smallest first.
        curve: (round, cost so far) of the client that pays most.
        sealing: how updates are packed and encrypted; None where they are not.
        rounding_warning: a sentence if values of so few bits take much more noise, else empty.
        data_warnings: what to look at in the records before training.
    """

    config: Config
    parameters: int
    train_records: int
    plans: tuple[ClientPlan, ...]
    curve: tuple[tuple[int, Spent], ...]
    sealing: SealingParameters | None
    rounding_warning: str = ""
    data_warnings: tuple[str, ...] = ()

    @property
    def bytes_down(self) -> int:
        """One model as float32, without framing: to one client in one round."""
        return self.parameters * _BYTES_PER_PARAMETER

    @property
    def bytes_up(self) -> int:
        """One update, sealed or as float32: from one client in one round."""
        return self.sealing.upload_bytes if self.sealing else self.bytes_down

    @property
    def warnings(self) -> list[str]:
        """What to think about before running this."""
        if not self.config.is_private:
            return list(self.data_warnings)
        by_record = self.config.privacy.unit == "record"
        units = self.train_records if by_record else self.config.federation.clients
        warning = delta_warning(self.config.privacy.delta, units, self.config.privacy.unit)
        return [*self.data_warnings, *filter(None, (warning, self.rounding_warning))]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; infinite epsilon is null."""
        privacy, config = self.config.privacy, self.config
        return {
            "preset": config.name,
            "guarantee": self.guarantee,
            "unit": privacy.unit,
            "noise": privacy.noise,
            "relation": self.plans[0].plan.relation,
            "epsilon_target": privacy.epsilon if config.is_private else None,
            "delta": privacy.delta,
            "clip_norm": privacy.clip_norm if config.is_private else None,
            "noise_multiplier": max(entry.plan.noise_multiplier for entry in self.plans),
            "epsilon_max": max(entry.total_cost.epsilon for entry in self.plans),
            "epsilon_record": self.epsilon_record,
            "rounds": config.training.rounds,
            "clients": config.federation.clients,
            "clients_per_round": config.cohort_size,
            "train_records": self.train_records,
            "parameters": self.parameters,
            "plans": [entry.as_dict() for entry in self.plans],
            "epsilon_by_round": [
                {"round": number, "pld": cost.pld, "rdp": cost.rdp} for number, cost in self.curve
            ],
            "bytes_down_per_client_round": self.bytes_down,
            "bytes_up_per_client_round": self.bytes_up,
            "bytes_down_per_round": self.bytes_down * config.cohort_size,
            "bytes_up_per_round": self.bytes_up * config.cohort_size,
            "sealing": self._sealing_as_dict(),
            "warnings": self.warnings,
        }

    def _sealing_as_dict(self) -> dict[str, Any] | None:
        if self.sealing is None:
            return None
        p = self.sealing
        return {
            "scheme": p.scheme,
            "expansion": p.expansion,
            "security_bits": p.security_bits,
            "poly_modulus_degree": p.poly_modulus_degree,
            "coeff_mod_bits": list(p.coeff_mod_bits),
            "plain_modulus": p.plain_modulus,
            "field_bits": p.field_bits,
            "fields_per_slot": p.fields_per_slot,
            "value_bound": p.value_bound,
            "field_headroom_bits": p.field_headroom_bits,
            "noise_headroom_bits": p.noise_headroom_bits,
            "min_contributors": self.config.secure_aggregation.min_contributors,
        }

    @property
    def guarantee(self) -> str:
        """The promise in words."""
        privacy = self.config.privacy
        if not self.config.is_private:
            return NO_PRIVACY
        epsilon, delta = promise_text(privacy.epsilon), delta_text(privacy.delta)
        return f"({epsilon}, {delta})-DP for each {self.whom}"

    @property
    def whom(self) -> str:
        """Whom the promise is for, in words."""
        return whom_text(self.config.privacy.unit, self.config.privacy.noise)

    @property
    def epsilon_record(self) -> float | None:
        """What a client-level run costs one record, or a client whose data are replaced.

        None where the promise itself is for records, or nothing is promised.
        """
        if not self.config.privacy.is_client_level:
            return None
        costs = [entry.plan.spent(entry.plan.rounds, "record") for entry in self.plans]
        return max(cost.epsilon for cost in costs)


def forecast(config: Config) -> Forecast:
    """Load the data, divide it as the run would, and make every client's plan.

    Raises:
        CalyxError: whatever would stop the run before its first round.
    """
    from calyx.server.roster import Member
    from calyx.server.round.plans import Plans
    from calyx.shared.data import load_split, partition
    from calyx.shared.models.tryout import try_model
    from calyx.shared.models.vector import dimension
    from calyx.shared.protocol.sealed.messages import sealing_parameters

    split = load_split(config.data, config.seed)
    train = split.train
    parts = partition(train, config.data, config.federation.clients, config.seed)
    model = try_model(config, train.spec, train.classes)
    members = [Member(str(number), len(part)) for number, part in enumerate(parts)]
    by_member = Plans(config, members, dimension(model))
    counts = Counter(by_member.of(member) for member in members)
    plans = tuple(
        ClientPlan(plan, clients, plan.spent(1), plan.spent(plan.rounds))
        for plan, clients in sorted(counts.items(), key=lambda item: item[0].declared_records)
    )
    costliest = max(plans, key=lambda entry: entry.total_cost.epsilon).plan
    rounds = thinned(range(1, costliest.rounds + 1), _CURVE_POINTS) if config.is_private else []
    sealing = sealing_parameters(config, costliest, dimension(model)) if config.is_sealed else None
    return Forecast(
        config=config,
        parameters=sum(int(value.numel()) for value in model.state_dict().values()),
        train_records=sum(len(part) for part in parts),
        plans=plans,
        curve=tuple((int(number), costliest.spent(int(number))) for number in rounds),
        sealing=sealing,
        rounding_warning=_rounding_warning(costliest, by_member),
        data_warnings=split.warnings,
    )


def _rounding_warning(plan: PrivacyPlan, plans: Plans) -> str:
    from calyx.server.round.plans import MUCH_OVERHEAD

    if plan.mechanism is None or plan.mechanism.rounding_overhead < MUCH_OVERHEAD:
        return ""
    better = plans.better_bits(plan.declared_records)
    advice = f"; secure_aggregation.bits = {better} would not" if better else ""
    overhead = plan.mechanism.rounding_overhead
    return f"rounding values to so few bits takes {overhead:.0%} more noise{advice}"
