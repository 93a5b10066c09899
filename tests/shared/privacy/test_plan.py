"""What a plan promises, how tightly, and what is refused when another party sends one."""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calyx.shared.config import Config
from calyx.shared.config.load import build, from_settings
from calyx.shared.errors import ConfigError, PrivacyError
from calyx.shared.privacy.accounting import spent
from calyx.shared.privacy.event import PrivacyEvent
from calyx.shared.privacy.plan import PrivacyPlan, SumShape, make_plan


def config(*lines: str) -> Config:
    return build(from_settings(lines))


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    return make_plan(Config(), 144)


@pytest.fixture(scope="module")
def sealed() -> PrivacyPlan:
    lines = ("privacy.noise=distributed", "secure_aggregation.scheme=bfv")
    return make_plan(config(*lines), 144, SumShape(1000, 8191))


class TestPromise:
    @settings(max_examples=6, deadline=None)
    @given(
        unit=st.sampled_from(["record", "client"]),
        sampling=st.sampled_from(["poisson", "full"]),
        epsilon=st.floats(0.2, 20.0),
        delta=st.floats(1e-8, 1e-3),
        rounds=st.integers(1, 60),
        batch=st.integers(8, 64),
        epochs=st.floats(0.2, 3.0),
        records=st.integers(40, 3000),
    )
    def test_it_is_kept_over_all_rounds_and_no_noise_is_wasted(
        self,
        unit: str,
        sampling: str,
        epsilon: float,
        delta: float,
        rounds: int,
        batch: int,
        epochs: float,
        records: int,
    ) -> None:
        made = make_plan(
            build(
                {
                    "privacy": {
                        "unit": unit,
                        "sampling": sampling,
                        "epsilon": epsilon,
                        "delta": delta,
                    },
                    "training": {"rounds": rounds, "batch_size": batch, "local_epochs": epochs},
                }
            ),
            records,
        )
        # What the ledger will see: one event a round.
        total = spent([made.round_event] * rounds, delta, made.unit).epsilon
        assert 0.995 * epsilon <= total <= epsilon
        assert made.spent(rounds).epsilon == total

    @pytest.mark.parametrize("epsilon", [0.05, 0.5, 40.0])
    def test_small_and_large_budgets_are_used_as_tightly(self, epsilon: float) -> None:
        made = make_plan(config(f"privacy.epsilon={epsilon}", "privacy.delta=1e-5"), 1000)
        assert 0.995 * epsilon <= made.spent(made.rounds).epsilon <= epsilon

    @pytest.mark.parametrize(
        ("epsilon", "delta"), [(1e-3, 1e-4), (1e4, 1e-4), (8.0, 1e-13), (8.0, 0.5)]
    )
    def test_absurd_budgets_are_kept_all_the_same(self, epsilon: float, delta: float) -> None:
        made = make_plan(config(f"privacy.epsilon={epsilon}", f"privacy.delta={delta}"), 144)
        total = spent([made.round_event] * made.rounds, delta, made.unit).epsilon
        assert 0 < made.noise_multiplier < math.inf
        assert total <= epsilon

    def test_each_round_adds_and_the_last_one_reaches_the_target(self, plan: PrivacyPlan) -> None:
        costs = [plan.spent(rounds).epsilon for rounds in (0, 1, 15, 30)]
        assert costs[0] == 0.0
        assert costs == sorted(set(costs))
        assert costs[-1] <= 8.0 < plan.spent(31).epsilon

    def test_asking_for_very_many_rounds_is_answered(self, plan: PrivacyPlan) -> None:
        assert plan.spent(10**9).epsilon > 1000

    def test_equal_settings_give_equal_plans(self, plan: PrivacyPlan) -> None:
        assert make_plan(Config(), 144) == plan
        assert make_plan(Config(), 143) != plan


class TestWhatARoundCosts:
    def test_with_record_level_noise_every_step_counts(self, plan: PrivacyPlan) -> None:
        assert plan.steps_per_round == 4
        assert plan.round_event == PrivacyEvent(
            "gaussian", "record", plan.noise_multiplier, "poisson", 32 / 144, 4
        )

    def test_full_batches_are_not_amplified(self) -> None:
        made = make_plan(config("privacy.sampling=full", "training.local_epochs=2"), 144)
        assert (made.round_event.sampling, made.round_event.sampling_rate) == ("full", 1.0)
        assert made.round_event.count == made.steps_per_round == 2
        assert made.expected_batch_size == 144.0

    def test_a_batch_as_large_as_the_data_is_a_full_batch(self) -> None:
        made = make_plan(config("training.batch_size=500"), 144)
        assert (made.sampling, made.sampling_rate, made.expected_batch_size) == ("full", 1.0, 144.0)

    def test_a_clients_update_is_one_use_with_twice_the_clip_norm_as_sensitivity(self) -> None:
        """Any two data sets: one clipped update may turn into its opposite."""
        made = make_plan(config("privacy.unit=client"), 144)
        assert made.sensitivity_factor == 2.0
        assert made.round_event == PrivacyEvent(
            "gaussian", "client", made.noise_multiplier / 2, "full", 1.0, 1, None, 1
        )

    def test_distributed_noise_is_one_step_a_round_and_keeps_the_promise(
        self, sealed: PrivacyPlan
    ) -> None:
        event = sealed.round_event
        assert (event.mechanism, event.count, event.sampling_rate) == ("skellam", 1, 32 / 144)
        total = spent([event] * 30, sealed.delta, "record")
        assert total.pld == math.inf
        assert 0.98 * 8 <= total.epsilon <= 8

    def test_distributed_noise_needs_to_know_the_sum(self) -> None:
        lines = ("privacy.noise=distributed", "secure_aggregation.scheme=bfv")
        with pytest.raises(PrivacyError, match="shape of the sum"):
            make_plan(config(*lines), 144)

    def test_without_noise_there_is_no_guarantee_and_the_plan_says_so(self) -> None:
        made = make_plan(config("privacy.noise=none"), 144)
        assert not made.is_private
        assert made.target_epsilon == math.inf
        assert made.round_event.mechanism == "none"
        assert made.spent(1).epsilon == math.inf

    def test_more_rounds_need_more_noise_and_so_do_fewer_records(self, plan: PrivacyPlan) -> None:
        assert make_plan(config("training.rounds=60"), 144).noise_multiplier > plan.noise_multiplier
        assert make_plan(Config(), 72).noise_multiplier > plan.noise_multiplier


class TestMaking:
    def test_a_nominal_count_is_used_whatever_is_declared(self) -> None:
        nominal = config("privacy.record_counts=nominal", "privacy.nominal_records=100")
        assert make_plan(nominal, 7) == make_plan(nominal, 5000)
        assert make_plan(nominal, 7).declared_records == 100

    def test_steps_can_be_given_instead_of_epochs(self) -> None:
        made = make_plan(config("training.local_steps=7", "privacy.noise=none"), 144)
        assert made.steps_per_round == 7

    def test_a_client_without_records_gets_no_plan(self) -> None:
        with pytest.raises(ConfigError, match="without records"):
            make_plan(Config(), 0)


class TestReceiving:
    @pytest.mark.parametrize(
        "lines", [(), ("privacy.unit=client",), ("privacy.sampling=full",), ("privacy.noise=none",)]
    )
    def test_what_is_sent_is_what_is_read(self, lines: tuple[str, ...]) -> None:
        sent = make_plan(config(*lines), 144)
        received = PrivacyPlan.from_json(sent.to_json())
        assert received == sent
        assert received.digest == sent.digest
        assert received.to_json() == sent.to_json()

    def test_so_it_is_with_distributed_noise(self, sealed: PrivacyPlan) -> None:
        received = PrivacyPlan.from_json(sealed.to_json())
        assert received == sealed
        assert received.spent(30) == sealed.spent(30)

    def test_any_change_changes_the_digest(self, plan: PrivacyPlan) -> None:
        changed = [
            replace(plan, clip_norm=1.1),
            replace(plan, noise_multiplier=plan.noise_multiplier + 1e-4),
            replace(plan, rounds=31),
            replace(plan, delta=1e-5),
        ]
        assert len({plan.digest, *(other.digest for other in changed)}) == 5

    NONSENSE: dict[str, dict[str, Any]] = {  # noqa: RUF012
        "clip norm that is no number": {"clip_norm": math.nan},
        "clip norm without end": {"clip_norm": math.inf},
        "clip norm of zero": {"clip_norm": 0.0},
        "clip norm too small for single precision": {"clip_norm": 1e-41},
        "clip norm just too small": {"clip_norm": 9.9e-7},
        "clip norm too large": {"clip_norm": 1.1e6},
        "huge integer clip norm": {"clip_norm": 10**400},
        "negative noise": {"noise_multiplier": -1.0},
        "no noise in a private plan": {"noise_multiplier": 0.0},
        "noise that is no number": {"noise_multiplier": math.nan},
        "noise without end": {"noise_multiplier": math.inf},
        "noise that overflows": {"noise_multiplier": 1e300},
        "noise that underflows": {"noise_multiplier": 1e-300},
        "noise as text": {"noise_multiplier": "1.5"},
        "noise as list": {"noise_multiplier": [1.5]},
        "sensitivity of another mechanism": {"sensitivity_factor": 2.0},
        "sensitivity of its own choice": {"sensitivity_factor": 0.1},
        "another unit with this sensitivity": {"unit": "client"},
        "no unit": {"unit": "household"},
        "no noise mode": {"noise": "imaginary"},
        "a relation of its own": {"relation": "nothing ever changes"},
        "no sampling": {"sampling": "shuffled"},
        "full at a rate": {"sampling": "full"},
        "rate of zero": {"sampling_rate": 0.0},
        "rate above one": {"sampling_rate": 1.5},
        "rate that is no number": {"sampling_rate": math.nan},
        "batch of nothing": {"expected_batch_size": 0.0},
        "batch without end": {"expected_batch_size": math.inf},
        "no steps": {"steps_per_round": 0},
        "half a step": {"steps_per_round": 2.5},
        "steps as truth": {"steps_per_round": True},
        "negative rounds": {"rounds": -1},
        "steps without end": {"steps_per_round": 10**18},
        "rounds without end": {"rounds": 10**400},
        "no records": {"declared_records": 0},
        "records without end": {"declared_records": 10**400},
        "target that is no number": {"target_epsilon": math.nan},
        "negative target": {"target_epsilon": -3.0},
        "target of zero": {"target_epsilon": 0.0},
        "no target in a private plan": {"target_epsilon": math.inf},
        "delta of zero": {"delta": 0.0},
        "delta of one": {"delta": 1.0},
        "delta that is no number": {"delta": math.nan},
        "an unknown field": {"mechanism": "gaussian"},
    }

    @pytest.mark.parametrize("case", NONSENSE)
    def test_nonsense_is_refused_in_one_line(self, plan: PrivacyPlan, case: str) -> None:
        text = json.dumps(json.loads(plan.to_json()) | self.NONSENSE[case])
        with pytest.raises(PrivacyError, match="privacy plan received") as caught:
            PrivacyPlan.from_json(text)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500

    @pytest.mark.parametrize(
        "change",
        [
            {"clip_norm": 2.0},
            {"noise_multiplier": 100.0},
            {"releases": 1},
            {"shares": 0},
            {"shares": 11},
            {"scaled_norm": math.nan},
            {"rounding": "none"},
            # Its bound holds for one rounded vector, not for a sum over many records.
            {"rounding": "conditional"},
            {"unknown": 1},
        ],
        ids=lambda change: "-".join(map(str, *change.items())),
    )
    def test_a_mechanism_that_the_plan_does_not_describe_is_refused(
        self, sealed: PrivacyPlan, change: dict[str, Any]
    ) -> None:
        changed = json.loads(sealed.to_json())
        changed["mechanism"] |= change
        with pytest.raises(PrivacyError, match="privacy plan received"):
            PrivacyPlan.from_json(json.dumps(changed))

    def test_only_distributed_noise_has_a_mechanism(
        self, plan: PrivacyPlan, sealed: PrivacyPlan
    ) -> None:
        mechanism = json.loads(sealed.to_json())["mechanism"]
        mechanism |= {"noise_multiplier": plan.noise_multiplier}
        with_one = json.loads(plan.to_json()) | {"mechanism": mechanism}
        without = json.loads(sealed.to_json()) | {"mechanism": None}
        for mismatched in (with_one, without):
            with pytest.raises(PrivacyError, match="out of range"):
                PrivacyPlan.from_json(json.dumps(mismatched))

    def test_a_plan_without_noise_cannot_promise_anything(self, plan: PrivacyPlan) -> None:
        unprotected = json.loads(make_plan(config("privacy.noise=none"), 144).to_json())
        with pytest.raises(PrivacyError):
            PrivacyPlan.from_json(json.dumps(unprotected | {"target_epsilon": 1.0}))

    @pytest.mark.parametrize(
        "field", [field.name for field in fields(PrivacyPlan) if field.default is MISSING]
    )
    def test_a_missing_field_is_never_guessed(self, plan: PrivacyPlan, field: str) -> None:
        incomplete = json.loads(plan.to_json())
        del incomplete[field]
        with pytest.raises(PrivacyError):
            PrivacyPlan.from_json(json.dumps(incomplete))

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "null",
            "3",
            "[]",
            "{}",
            "{",
            '"plan"',
            "[" * 100_000,
            '{"unit":' * 100_000,
            '{"rounds":' + "9" * 100_000 + "}",
            "\x00",
        ],
        ids=lambda text: repr(text[:12]),
    )
    def test_what_is_no_plan_at_all_is_refused(self, text: str) -> None:
        with pytest.raises(PrivacyError, match="privacy plan received"):
            PrivacyPlan.from_json(text)

    @settings(max_examples=100, deadline=None)
    @given(text=st.text(max_size=200))
    def test_no_text_does_anything_but_be_refused(self, text: str) -> None:
        with pytest.raises(PrivacyError):
            PrivacyPlan.from_json(text)
