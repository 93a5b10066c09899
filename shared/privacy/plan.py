"""One frozen object that says what is promised and how: the `PrivacyPlan`.

Trainer, sealing, accountant, ledger, policy and report all read it, so they cannot disagree.

>>> plan = make_plan(Config(), declared_records=144)
>>> plan.noise_multiplier, plan.spent(rounds=plan.rounds).epsilon <= 8
(..., True)

Guarantee, by unit and noise:

* *record, local*: DP-SGD (Abadi et al. 2016) inside the client. Anyone who sees the client's
  updates, the server included, learns no more than (epsilon, delta) about one record.
  Neighbours: a record is replaced by a null record whose gradient is zero, so record counts
  and divisors are public constants.
* *client, local*: the whole update is clipped to C and noised on the device. Neighbours: any
  two data sets of that client, so two clipped updates differ by up to 2C.
* *record, distributed*: one step of DP-SGD a round over the union of all clients' records. Each
  client adds its share of Skellam noise to the clipped sum of its own gradients and seals it.
  Anyone who sees the released sums learns no more than (epsilon, delta) about one record, as long
  as at least `min_contributors` of the clients in each sum are honest.
* *client, distributed*: DP-FedAvg (McMahan et al. 2018) with the same noise on the sum of clipped
  updates. Neighbours: a client's update is replaced by zero. If instead one of its records, or
  all, are replaced, the clipped update moves by up to 2C and epsilon is larger
  (`PrivacyEvent.replacement_factor`).
* *client, central*: the same sum, but in clear at the server, which adds Gaussian noise. The
  promise holds against everyone but the server.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, with_config
from scipy.optimize import brentq

from calyx.shared.config import Config
from calyx.shared.config.protection import Protection
from calyx.shared.config.schema import LARGEST_CLIP_NORM, SMALLEST_CLIP_NORM
from calyx.shared.errors import ConfigError, Fault, PrivacyError, full_text
from calyx.shared.privacy.accounting import Spent, Whom, spent
from calyx.shared.privacy.event import PrivacyEvent, Unit
from calyx.shared.privacy.skellam_mechanism import (
    SkellamMechanism,
    calibrate_mechanism,
    fit_mechanism,
)

# The calibrated multiplier is rounded up to this grid, so that it prints and hashes the same
# everywhere and never promises more than it keeps.
_MULTIPLIER_GRID = 1e-4
_LARGEST_COUNT = 10**9


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class PrivacyPlan(Protection):
    """What one client does to be private, for the whole run.

    Attributes:
        unit: whom epsilon protects.
        noise: who adds the noise.
        relation: the neighbouring relation in words.
        clip_norm: L2 bound C of one unit's contribution, in gradient (record) or weight
            (client) units.
        noise_multiplier: noise standard deviation divided by `clip_norm`; 0 without privacy.
        sensitivity_factor: largest change of the clipped value in units of `clip_norm`.
        sampling: how records enter a batch.
        sampling_rate: probability of each record in each step; 1 for full batches.
        expected_batch_size: public divisor of noisy gradient sums.
        steps_per_round: optimiser steps a round.
        rounds: rounds the budget covers.
        declared_records: the public record count the rates were made from.
        target_epsilon: the promise at `delta` after all rounds; infinite without privacy.
        delta: see `target_epsilon`.
        mechanism: grid and noise of sealed sums; None unless noise is distributed.
    """

    unit: Unit
    noise: Literal["none", "local", "distributed", "central"]
    relation: str
    clip_norm: float
    noise_multiplier: float
    sensitivity_factor: float
    sampling: Literal["poisson", "full"]
    sampling_rate: float
    expected_batch_size: float
    steps_per_round: int
    rounds: int
    declared_records: int
    target_epsilon: float
    delta: float
    mechanism: SkellamMechanism | None = None

    @property
    def replacement_factor(self) -> int | None:
        """See `PrivacyEvent`: two clipped updates are up to 2C apart, whatever was replaced."""
        return round(2 / self.sensitivity_factor) if self.is_client_level else None

    @property
    def round_event(self) -> PrivacyEvent:
        """What one round of training costs: the event the ledger records before it starts."""
        if not self.is_private:
            return PrivacyEvent("none", self.unit, 0.0, "full", 1.0, 1)
        count = self.steps_per_round if self.unit == "record" else 1
        sampling, rate = (
            (self.sampling, self.sampling_rate) if self.unit == "record" else ("full", 1.0)
        )
        effective = self.noise_multiplier / self.sensitivity_factor
        kind: Literal["gaussian", "skellam"] = "gaussian" if self.mechanism is None else "skellam"
        factor, mechanism = self.replacement_factor, self.mechanism
        return PrivacyEvent(kind, self.unit, effective, sampling, rate, count, mechanism, factor)

    def spent(self, rounds: int, whom: Whom | None = None) -> Spent:
        """What that many rounds cost `whom`, by default the plan's unit, by both accountants."""
        return spent([self.events(rounds)], self.delta, whom or self.unit)

    def events(self, rounds: int) -> PrivacyEvent:
        """All that those rounds cost, as one event."""
        event = self.round_event
        return replace(event, count=event.count * rounds)

    def to_json(self) -> str:
        """Canonical JSON: equal plans have equal text."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> PrivacyPlan:
        """Read a plan that another party sent; anything unexpected is refused."""
        try:
            plan: PrivacyPlan = _reader().validate_json(text, strict=True)
            numbers = [plan.clip_norm, plan.noise_multiplier, plan.expected_batch_size, plan.delta]
            sane = all(math.isfinite(x) and x >= 0 for x in numbers)
            sane = sane and plan.unit in ("record", "client")
            sane = sane and plan.noise in ("none", "local", "distributed", "central")
            sane = sane and 0 < plan.delta < 1
            sane = sane and SMALLEST_CLIP_NORM <= plan.clip_norm <= LARGEST_CLIP_NORM
            counts = (plan.steps_per_round, plan.rounds, plan.declared_records)
            sane = sane and all(1 <= count <= _LARGEST_COUNT for count in counts)
            sane = sane and plan.expected_batch_size > 0 and plan.sensitivity_factor in (1.0, 2.0)
            sane = sane and plan == _with_forced_factor(plan)
            sane = sane and plan.relation == _relation(plan.unit, plan.noise)
            sane = sane and (
                0 < plan.target_epsilon < math.inf
                if plan.is_private
                else plan.target_epsilon == math.inf
            )
            sane = sane and (plan.mechanism is not None) == (plan.noise == "distributed")
            sane = sane and (plan.mechanism is None or _mechanism_fits(plan, plan.mechanism))
            if not sane:
                raise ValueError("a value is out of range")
            _ = plan.round_event
        except (ValueError, PrivacyError) as error:
            reason = full_text(error)[:200]
            raise PrivacyError(f"the privacy plan received cannot be used: {reason}") from None
        return plan

    @property
    def digest(self) -> str:
        """SHA-256 of `to_json`, hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def _mechanism_fits(plan: PrivacyPlan, mechanism: SkellamMechanism) -> bool:
    """What plan and mechanism both say must be the same."""
    return (
        mechanism.rounding == "dithered"
        and mechanism.clip_norm == plan.clip_norm
        and mechanism.noise_multiplier == plan.noise_multiplier
        and mechanism.releases == plan.rounds
    )


@lru_cache(maxsize=1)
def _reader() -> TypeAdapter[PrivacyPlan]:
    """Kept: every instruction carries a plan, and a new reader takes longer than reading."""
    return TypeAdapter(PrivacyPlan)


def _with_forced_factor(plan: PrivacyPlan) -> PrivacyPlan:
    """The sensitivity follows from unit and noise; a sender cannot choose it."""
    factor = _sensitivity_factor(plan.unit, plan.noise)
    return replace(plan, sensitivity_factor=factor)


def _sensitivity_factor(unit: str, noise: str) -> float:
    return 2.0 if (unit, noise) == ("client", "local") else 1.0


@dataclass(frozen=True)
class SumShape:
    """What distributed noise has to fit into.

    Attributes:
        dimension: entries of the vectors that are summed: the model's trainable parameters.
        value_bound: largest absolute entry that a field of the sealed sum takes.
    """

    dimension: int
    value_bound: int


def make_plan(
    config: Config, declared_records: int, sum_shape: SumShape | None = None
) -> PrivacyPlan:
    """Derive one client's plan from the config and its public record count.

    Args:
        config: the run.
        declared_records: the client's public record count, or for distributed noise the largest
            of all clients; ignored in favour of ``privacy.nominal_records`` when counts are
            nominal.
        sum_shape: needed for distributed noise only.

    Raises:
        ConfigError: epsilon cannot be reached.
        PrivacyError: the noise does not fit the fields of the sealed sum.
    """
    draft = draft_plan(config, declared_records)
    if not draft.is_private:
        return draft
    if draft.noise == "distributed":
        if sum_shape is None:
            raise PrivacyError("distributed noise needs the shape of the sum it is added to")
        return _calibrated_sum(
            draft,
            sum_shape,
            config.secure_aggregation.min_contributors,
            config.cohort_size,
        )
    return _calibrated(draft)


def draft_plan(config: Config, declared_records: int) -> PrivacyPlan:
    """The plan but for its noise multiplier, which is 0; arguments and errors as `make_plan`.

    It costs nothing to make, so a client can compare it with the plan it was sent.
    """
    privacy, training = config.privacy, config.training
    records = privacy.nominal_records if privacy.record_counts == "nominal" else declared_records
    if records < 1:
        raise ConfigError("a client without records cannot have a privacy plan")
    full = privacy.sampling == "full" and config.is_private
    batch = records if full else min(training.batch_size, records)
    return PrivacyPlan(
        unit=privacy.unit,
        noise=privacy.noise,
        relation=_relation(privacy.unit, privacy.noise),
        clip_norm=privacy.clip_norm,
        noise_multiplier=0.0,
        sensitivity_factor=_sensitivity_factor(privacy.unit, privacy.noise),
        sampling="full" if full or batch == records else "poisson",
        sampling_rate=batch / records,
        expected_batch_size=float(batch),
        steps_per_round=_steps(config, records, batch),
        rounds=training.rounds,
        declared_records=records,
        target_epsilon=privacy.epsilon if config.is_private else math.inf,
        delta=privacy.delta,
    )


def _steps(config: Config, records: int, batch: int) -> int:
    if config.privacy.is_gradient_sum:
        return 1  # only a sum of gradients at one and the same model is a step over the union
    epochs = config.training.local_epochs
    return config.training.local_steps or max(1, round(epochs * records / batch))


def _relation(unit: str, noise: str) -> str:
    if noise == "none":
        return "none"
    if unit == "record":
        return "one record replaced by a null record"
    if noise != "local":
        return "one client's update replaced by zero"
    return "all records of one client replaced by any others"


@lru_cache(maxsize=256)
def _calibrated(draft: PrivacyPlan) -> PrivacyPlan:
    """Find the smallest noise, to one part in 1,000, that keeps the promise over all rounds.

    The search runs on a coarse loss grid, which errs on the safe side; what it finds is then
    checked, and if need be raised, with the accountant that the ledger uses.
    """

    def excess(log_multiplier: float, *, coarse: bool = True) -> float:
        plan = _with_noise(draft, math.exp(log_multiplier))
        cost = spent([plan.events(plan.rounds)], plan.delta, plan.unit, coarse=coarse)
        return math.log(max(cost.epsilon, 1e-12) / draft.target_epsilon)

    low = high = 0.0
    step = math.log(1.5)
    while excess(high) > 0:
        low, high = high, high + step
        if high > math.log(1e6):
            raise ConfigError(
                "no amount of noise reaches this budget",
                [
                    Fault(
                        "privacy.epsilon",
                        str(draft.target_epsilon),
                        "too little for these rounds",
                        "raise it or lower training.rounds",
                    )
                ],
            )
    while low == high or excess(low) <= 0:
        low, high = low - step, low
        if low < math.log(1e-3):
            break
    root = brentq(excess, low, high, xtol=3e-4) if excess(low) > 0 else low
    while (slack := excess(root, coarse=False)) < -1e-3 and root > math.log(1e-3):
        # Epsilon falls at least as fast as the multiplier grows; the coarse grid was too careful.
        root += slack / 2
    plan = _with_noise(draft, math.exp(root))
    while plan.spent(plan.rounds).epsilon > draft.target_epsilon:
        plan = _with_noise(draft, plan.noise_multiplier * 1.0003)
    return plan


@lru_cache(maxsize=64)
def _calibrated_sum(
    draft: PrivacyPlan, shape: SumShape, shares: int, contributors: int
) -> PrivacyPlan:
    """Choose grid and noise of the sealed sums, so that the promise holds over all rounds."""
    # A client's clipped sum is at most as long as its batch is large; longer ones are clamped.
    signal = draft.expected_batch_size if draft.unit == "record" else 1.0

    def fit(noise_multiplier: float) -> SkellamMechanism:
        return fit_mechanism(
            dimension=shape.dimension,
            clip_norm=draft.clip_norm,
            noise_multiplier=noise_multiplier,
            shares=shares,
            contributors=contributors,
            releases=draft.rounds,
            signal_norm=signal,
            value_bound=shape.value_bound,
        )

    rate = draft.sampling_rate if draft.unit == "record" else 1.0
    mechanism = calibrate_mechanism(
        fit, epsilon=draft.target_epsilon, delta=draft.delta, sampling_rate=rate
    )
    return replace(draft, noise_multiplier=mechanism.noise_multiplier, mechanism=mechanism)


def _with_noise(plan: PrivacyPlan, multiplier: float) -> PrivacyPlan:
    on_grid = math.ceil(multiplier / _MULTIPLIER_GRID) * _MULTIPLIER_GRID
    return replace(plan, noise_multiplier=round(on_grid, 4))
