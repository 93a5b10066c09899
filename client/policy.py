"""What the owner of a device allows, checked against every instruction before anything else.

A policy is a TOML file on the device; only ``[privacy]`` and its first three keys must be there::

    [privacy]
    max_epsilon = 8.0          # in all, over every round and run; inf: no limit
    max_delta = 1e-5
    unit = "record"            # whom the guarantee must protect: record, client or any;
                               # with any, max_epsilon is for each record, whatever the run's unit
    noise = ["local"]          # who may add it: local, distributed, central
    allow_unprotected = false  # training without noise; only with max_epsilon = inf

    [secure_aggregation]
    required = false           # only sealed updates may leave
    min_contributors = 3       # in sealed runs: no sum of fewer clients
    accept_untagged = false    # also CKKS, whose sums the authority cannot check

    [training]
    models = []                # empty: those built in; "*": any; your own must be named
    tasks = []                 # of your own, as "mytask:task sha256:HEX"; those built in always may
    max_local_steps = 500      # a round
    max_rounds = 1000          # a run

    [release]
    metrics = false            # exact loss and metrics may leave
    record_counts = false      # the number of records may leave

No claim of a server is trusted: epsilon is computed from what the plan will do, and the plan must
be the one that the run's configuration leads to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.types import Strict

from calyx.client.agreed_task import AgreedTask, disagreement, load
from calyx.client.ledger.ledger import Budget
from calyx.shared.config import Config
from calyx.shared.config.load import faults_of, from_toml
from calyx.shared.config.schema import DEFAULT_CONTRIBUTORS, FEWEST_CONTRIBUTORS, Positive, Section
from calyx.shared.errors import ConfigError, PolicyViolation
from calyx.shared.privacy.accounting import spent, within
from calyx.shared.privacy.epsilon_text import delta_text, epsilon_text, promise_text
from calyx.shared.privacy.plan import PrivacyPlan, draft_plan

_ANY_MODEL = "*"


class _Limits(Section):
    """A section of the policy; values are taken as they stand, never converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PrivacyLimits(_Limits):
    """``[privacy]``: what may be lost, and how it must be protected."""

    max_epsilon: Annotated[float, Field(gt=0, allow_inf_nan=True)] = Field(
        description="Budget in all, over every round of every run on these records; the ledger "
        "refuses what goes beyond. `inf`: no limit."
    )
    max_delta: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="The largest δ at which the budget may be meant."
    )
    unit: Literal["record", "client", "any"] = Field(
        description="Whom the guarantee must protect: `record`; `client`, its update against "
        "none; or `any`, and then `max_epsilon` is for each record."
    )
    noise: Annotated[tuple[Literal["local", "distributed", "central"], ...], Strict(False)] = Field(
        ("local", "distributed"), description="Who may add the noise."
    )
    allow_unprotected: bool = Field(
        False, description="Whether training without noise is allowed; needs `max_epsilon = inf`."
    )

    @model_validator(mode="after")
    def _unprotected_has_no_limit(self) -> PrivacyLimits:
        if self.allow_unprotected and not math.isinf(self.max_epsilon):
            raise ValueError(
                "allow_unprotected = true needs max_epsilon = inf: training without noise has no "
                "finite epsilon; set that, or allow_unprotected = false"
            )
        return self


class SealingLimits(_Limits):
    """``[secure_aggregation]``: how single updates must be hidden from the server."""

    required: bool = Field(False, description="Whether only sealed updates may leave.")
    min_contributors: Annotated[int, Field(ge=FEWEST_CONTRIBUTORS)] = Field(
        DEFAULT_CONTRIBUTORS, description="In sealed runs: the fewest clients in a sum."
    )
    accept_untagged: bool = Field(
        False, description="Whether sums may be such (CKKS) that the authority cannot check them."
    )


class TrainingLimits(_Limits):
    """``[training]``: what may run here, and for how long."""

    models: Annotated[tuple[str, ...], Strict(False)] = Field(
        (),
        description='Models that may run here. Empty: the built-in ones; `"*"`: any. A '
        "`module:function` must be named.",
    )
    tasks: Annotated[tuple[str, ...] | None, Strict(False)] = Field(
        (),
        description="Tasks of your own that may run here, each as `module:object sha256:HEX` with "
        "the hash of its code; there is no word for any. `calyx client enroll --task` writes it.",
    )
    max_local_steps: Positive | None = Field(None, description="Steps in a round, at most.")
    max_rounds: Positive | None = Field(None, description="Rounds of a run, at most.")

    @field_validator("tasks")
    @classmethod
    def _tasks_are_named(cls, tasks: Sequence[str] | None) -> Sequence[str] | None:
        for line in tasks or ():
            AgreedTask.read(line)
        return tasks

    @property
    def agreed_tasks(self) -> tuple[AgreedTask, ...] | None:
        """The tasks with their hashes; None: any, which only a simulation can say."""
        return None if self.tasks is None else tuple(map(AgreedTask.read, self.tasks))


class ReleaseLimits(_Limits):
    """``[release]``: what may leave beside the protected update."""

    metrics: bool = Field(False, description="Whether exact loss and metrics may leave.")
    record_counts: bool = Field(
        False,
        description="Whether the number of records may leave. Without it only private runs with "
        '`privacy.record_counts = "nominal"` pass. The policy that `enroll` writes allows it.',
    )


class Policy(_Limits):
    """The owner's limits; see the module docstring for the file."""

    privacy: PrivacyLimits
    secure_aggregation: SealingLimits = SealingLimits()
    training: TrainingLimits = TrainingLimits()
    release: ReleaseLimits = ReleaseLimits()

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Read a policy file.

        Raises:
            ConfigError: it cannot be read, is not TOML, or holds values that are not a policy; all
                faults are listed.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"the policy {path} cannot be read: {error}",
                hint="correct it or restore it from a copy",
            ) from None
        try:
            return cls.model_validate(from_toml(text, where=f"the policy {path}"))
        except ValidationError as error:
            faults = faults_of(error, Policy, "must be given; only the owner can decide it")
            raise ConfigError(
                f"the policy {path} is not valid",
                faults,
                hint="correct these lines of the file",
            ) from None

    @classmethod
    def simulation(cls, plan: PrivacyPlan) -> Policy:
        """What a simulated client without a policy allows: exactly what the run promises.

        Raises:
            PolicyViolation: what the plan promises cannot be a limit.
        """
        try:
            limits = PrivacyLimits(
                max_epsilon=plan.target_epsilon,
                max_delta=plan.delta,
                unit=plan.unit,
                noise=("local", "distributed", "central"),
                allow_unprotected=not plan.is_private,
            )
        except ValidationError:
            raise PolicyViolation(
                f"the plan promises epsilon {plan.target_epsilon} at delta {plan.delta} with noise "
                f"{plan.noise}, which is no limit",
                hint="make a new plan",
            ) from None
        return cls(
            privacy=limits,
            secure_aggregation=SealingLimits(
                min_contributors=FEWEST_CONTRIBUTORS, accept_untagged=True
            ),
            training=TrainingLimits(models=(_ANY_MODEL,), tasks=None),
            release=ReleaseLimits(metrics=True, record_counts=True),
        )

    @property
    def budget(self) -> Budget:
        """What the ledger may reach; for a record where any unit will do.

        Every event says something about a record, and a record is never the cheaper unit:
        client-level events count for a record with up to twice their sensitivity.
        """
        unit = self.privacy.unit
        return Budget(
            self.privacy.max_epsilon,
            self.privacy.max_delta,
            "record" if unit == "any" else unit,
        )

    def check(self, config: Config, plan: PrivacyPlan) -> None:
        """Let an instruction pass only if it keeps every limit.

        Args:
            config: the run as the server describes it.
            plan: what this client is told to do.

        Raises:
            PolicyViolation: names every limit that is not kept, what was requested and what is
                allowed.
        """
        lies = list(_contradictions(config, plan))
        faults = [*self._privacy(plan), *self._sealing(config), *self._training(config, plan)]
        faults += self._record_count(config)
        if not self.release.metrics:
            faults += _metrics(config)
        if faults or lies:
            raise PolicyViolation(
                "; ".join(["the owner's policy does not allow this run", *faults, *lies]),
                hint="change the run, or ask the owner to change the policy",
            )

    def check_offer(self, config: Config) -> None:
        """Let a sealing offer pass only if the run keeps the limits that need no plan to check.

        Raises:
            PolicyViolation: naming every limit that is not kept.
        """
        faults = [*self._sealing(config), *self._model(config), *self._task(config)]
        if not config.is_sealed:
            faults.append(_fault_text("secure_aggregation.scheme", "none", "bfv, or no offer"))
        if faults:
            raise PolicyViolation(
                "; ".join(["the owner's policy does not allow this sealed run", *faults]),
                hint="change the run, or ask the owner to change the policy",
            )

    def check_evaluation(self, config: Config) -> None:
        """Let an evaluation pass only if metrics may leave and the model may run here.

        Raises:
            PolicyViolation: naming every limit that is not kept.
        """
        faults = [*self._model(config), *self._task(config), *self._record_count(config)]
        if not self.release.metrics:
            faults.append(_fault_text("evaluation", "exact metrics", "none"))
        if faults:
            raise PolicyViolation(
                "; ".join(["the owner's policy does not allow this evaluation", *faults]),
                hint="leave evaluation to the server, or ask the owner to change the policy",
            )

    def admit_task(self, config: Config) -> None:
        """Load the code of a run's own task if it is what the owner agreed to.

        Raises:
            PolicyViolation: it is not; nothing was imported.
            DataError: it fails.
        """
        agreed = self.training.agreed_tasks
        if config.task.is_own and agreed is not None:
            load(config.task.kind, agreed)

    def check_record_count(self, config: Config) -> None:
        """Let an introduction pass only if the run's clients keep their count, or may reveal it.

        Raises:
            PolicyViolation: the count was requested and may not leave.
        """
        if faults := [*self._record_count(config)]:
            raise PolicyViolation(
                "; ".join(["the owner's policy does not allow this run", *faults]),
                hint="set privacy.record_counts = nominal, or ask the owner to change the policy",
            )

    def _record_count(self, config: Config) -> Iterator[str]:
        # A plan is only carried out if it was made for the right number of records, so a server
        # that may not ask for the number may not send plans that depend on it either.
        if config.tells_record_counts and not self.release.record_counts:
            asked = "privacy.record_counts" if config.is_private else "record counts without noise"
            yield _fault_text(asked, "public", "nominal, in a private run")

    def _privacy(self, plan: PrivacyPlan) -> Iterator[str]:
        limits = self.privacy
        if limits.unit not in (plan.unit, "any"):
            yield _fault_text("privacy.unit", plan.unit, limits.unit)
        if plan.delta > limits.max_delta:
            allowed_delta = delta_text(limits.max_delta)
            yield _fault_text("privacy.delta", delta_text(plan.delta), f"at most {allowed_delta}")
        if not plan.is_private:
            if not limits.allow_unprotected:
                yield _fault_text("privacy.noise", "none", " or ".join(limits.noise))
            return
        if plan.noise not in limits.noise:
            yield _fault_text("privacy.noise", plan.noise, " or ".join(limits.noise) or "nothing")
        # One use of n times the count costs what n uses cost, without a list of n events.
        round_event = plan.round_event
        whole_run = [replace(round_event, count=round_event.count * plan.rounds)]
        whom = self.budget.unit
        if not within(whole_run, limits.max_epsilon, plan.delta, whom):
            epsilon = epsilon_text(spent(whole_run, plan.delta, whom).epsilon)
            allowed = f"at most {promise_text(limits.max_epsilon)}"
            yield _fault_text("epsilon", f"{epsilon} for each {whom}", allowed)
        if not within(whole_run, plan.target_epsilon, plan.delta, plan.unit):
            epsilon = epsilon_text(spent(whole_run, plan.delta, plan.unit).epsilon)
            promised = promise_text(plan.target_epsilon)
            yield f"the plan promises epsilon {promised} but spends {epsilon}"

    def _sealing(self, config: Config) -> Iterator[str]:
        limits, asked = self.secure_aggregation, config.secure_aggregation
        if not config.is_sealed:
            if limits.required:
                allowed = "bfv or ckks" if limits.accept_untagged else "bfv"
                yield _fault_text("secure_aggregation.scheme", "none", allowed)
            return
        # Without tags a server can have something other than the sum decrypted (docs/adr/0011).
        if asked.scheme == "ckks" and not limits.accept_untagged:
            yield _fault_text("secure_aggregation.scheme", "ckks", "bfv")
        if asked.min_contributors < limits.min_contributors:
            yield _fault_text(
                "secure_aggregation.min_contributors",
                asked.min_contributors,
                f"at least {limits.min_contributors}",
            )

    def _model(self, config: Config) -> Iterator[str]:
        limits, model = self.training, config.model.name
        named = model in limits.models or _ANY_MODEL in limits.models
        # A name with a colon is code that the server chooses: it needs the owner's explicit yes.
        if not named and (limits.models or ":" in model):
            yield _fault_text(
                "model.name", model, " or ".join(limits.models) or "the models built in"
            )

    def _task(self, config: Config) -> Iterator[str]:
        # A name with a colon is code, as with models; but a model only sees what it is given, and a
        # task says what is a record and what is measured. So its code is agreed to, not its name.
        agreed = self.training.agreed_tasks
        if (
            config.task.is_own
            and agreed is not None
            and (reason := disagreement(config.task.kind, agreed))
        ):
            yield reason

    def _training(self, config: Config, plan: PrivacyPlan) -> Iterator[str]:
        limits = self.training
        yield from self._model(config)
        yield from self._task(config)
        if limits.max_local_steps is not None and plan.steps_per_round > limits.max_local_steps:
            yield _fault_text(
                "steps a round", plan.steps_per_round, f"at most {limits.max_local_steps}"
            )
        if limits.max_rounds is not None and plan.rounds > limits.max_rounds:
            yield _fault_text("training.rounds", plan.rounds, f"at most {limits.max_rounds}")


def _metrics(config: Config) -> Iterator[str]:
    if config.is_private and config.privacy.release_metrics:
        yield _fault_text("privacy.release_metrics", "true", "false")
    if config.federation.client_evaluation:
        yield _fault_text("federation.client_evaluation", "true", "false")


def _contradictions(config: Config, plan: PrivacyPlan) -> Iterator[str]:
    """Where the plan is not the one that the configuration leads to.

    The amount of noise needs no comparison: epsilon is computed from it.
    """
    expected = asdict(draft_plan(config, plan.declared_records))
    claimed = asdict(plan)
    for name in sorted(expected.keys() - {"noise_multiplier", "mechanism"}):
        if claimed[name] != expected[name]:
            yield _contradiction(name, claimed[name], expected[name])
    if plan.mechanism is not None:
        shares, asked = plan.mechanism.shares, config.secure_aggregation.min_contributors
        if shares != asked:
            yield _contradiction("noise shares", shares, asked)
        if plan.mechanism.contributors != config.cohort_size:
            yield _contradiction("contributors", plan.mechanism.contributors, config.cohort_size)


def _contradiction(name: str, claimed: object, configured: object) -> str:
    return f"the plan says {name} {claimed!r:.60} but the configuration gives {configured!r:.60}"


def _fault_text(key: str, asked: object, allowed: object) -> str:
    return f"{key} = {asked} was requested, the policy allows {allowed}"
