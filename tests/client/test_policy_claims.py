"""A server cannot talk its way around a policy: plans are recomputed, not trusted."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calyx.client.ledger.ledger import Budget
from calyx.client.policy import Policy
from calyx.shared.config import Config
from calyx.shared.errors import PolicyViolation, PrivacyError
from calyx.shared.privacy.accounting import spent
from calyx.shared.privacy.plan import PrivacyPlan, make_plan
from tests.client.policies import owners, refusal, run


class TestClaims:
    """A server that says one thing in the configuration and another in the plan."""

    @pytest.mark.parametrize(
        "change",
        [
            {"clip_norm": 5.0},
            {"delta": 1e-6},
            {"rounds": 31},
            {"rounds": 1},
            {"steps_per_round": 3},
            {"sampling_rate": 0.1},
            {"expected_batch_size": 16.0},
            {"target_epsilon": 3.0},
            {"sensitivity_factor": 0.5},
            {"relation": "nothing ever changes"},
            {"sampling": "full", "sampling_rate": 1.0},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_a_plan_that_is_not_the_configurations_is_refused(self, change: dict[str, Any]) -> None:
        config, plan = run()
        owners().check(config, plan)
        text = refusal(owners(max_epsilon=1e6), config, replace(plan, **change))
        assert f"the plan says {next(iter(change))}" in text
        assert "but the configuration gives" in text

    def test_a_plan_for_more_records_than_its_rates_were_made_for_is_refused(self) -> None:
        config, plan = run()
        text = refusal(owners(max_epsilon=1e6), config, replace(plan, declared_records=1000))
        assert "the plan says sampling_rate 0.2222222222222222" in text

    @pytest.mark.parametrize(
        ("planned", "configured"),
        [
            ("privacy.noise=none", "seed=0"),
            ("seed=0", "privacy.noise=none"),
            ("privacy.unit=client", "seed=0"),
            ("seed=0", "privacy.unit=client"),
            ("privacy.sampling=full", "seed=0"),
        ],
    )
    def test_a_plan_of_another_kind_is_refused(self, planned: str, configured: str) -> None:
        generous = owners(max_epsilon=math.inf, allow_unprotected=True, noise=["local", "central"])
        text = refusal(generous, run(configured)[0], run(planned)[1])
        assert "but the configuration gives" in text

    def test_a_private_number_of_records_cannot_be_put_in_place_of_the_nominal_one(self) -> None:
        nominal = ("privacy.record_counts=nominal", "privacy.nominal_records=100")
        config, plan = run(*nominal)
        owners().check(config, plan)
        text = refusal(owners(), config, make_plan(run()[0], 144))
        assert "declared_records 144 but the configuration gives 100" in text

    def test_less_noise_than_promised_is_found_by_computing_it(self) -> None:
        config, plan = run("privacy.epsilon=3")
        weak = replace(plan, noise_multiplier=plan.noise_multiplier / 2)
        text = refusal(owners(max_epsilon=1e6), config, weak)
        assert "the plan promises epsilon 3 but spends" in text

    def test_noise_shares_are_those_that_the_configuration_counts_on(self) -> None:
        sealed = ("privacy.noise=distributed", "secure_aggregation.scheme=bfv")
        config, plan = run(*sealed, "secure_aggregation.min_contributors=5")
        assert plan.mechanism is not None
        for change in ({"shares": 6}, {"contributors": 11}):
            lying = replace(plan, mechanism=replace(plan.mechanism, **change))
            text = refusal(owners(max_epsilon=1e6), config, lying)
            assert "but the configuration gives" in text


class TestSimulation:
    @pytest.mark.parametrize(
        "lines",
        [
            (),
            ("privacy.noise=none",),
            ("privacy.unit=client",),
            ("privacy.noise=central", "privacy.unit=client"),
            ("privacy.release_metrics=true", "federation.client_evaluation=true"),
            ("model.name=mine:net",),
        ],
        ids=" ".join,
    )
    def test_a_simulated_client_allows_exactly_what_its_plan_promises(
        self, lines: tuple[str, ...]
    ) -> None:
        config, plan = run(*lines)
        limits = Policy.simulation(plan)
        limits.check(config, plan)
        assert limits.budget == Budget(plan.target_epsilon, plan.delta, plan.unit)

    def test_it_too_finds_a_plan_that_does_not_keep_its_promise(self) -> None:
        config, plan = run()
        weak = replace(plan, noise_multiplier=plan.noise_multiplier * 0.9)
        assert "promises epsilon 8 but spends" in refusal(Policy.simulation(weak), config, weak)

    @pytest.mark.parametrize("target", [math.nan, -1.0, 0.0])
    def test_a_promise_that_is_no_limit_is_refused(self, target: float) -> None:
        with pytest.raises(PolicyViolation, match="no limit"):
            Policy.simulation(replace(run()[1], target_epsilon=target))

    def test_a_finite_promise_without_noise_is_refused(self) -> None:
        unprotected = run("privacy.noise=none")[1]
        with pytest.raises(PolicyViolation):
            Policy.simulation(replace(unprotected, target_epsilon=1.0))


@pytest.fixture(scope="module")
def honest_runs() -> list[tuple[Config, PrivacyPlan]]:
    return [
        run(),
        run("privacy.unit=client"),
        run("privacy.sampling=full", "privacy.epsilon=2"),
        run("privacy.unit=client", "training.rounds=1", "privacy.epsilon=2"),
        run("privacy.noise=none"),
    ]


# Few values each, so that the accountant's cache keeps the examples cheap.
LIES: list[dict[str, Any]] = [
    {"noise_multiplier": 1.0},
    {"noise_multiplier": 4.0},
    {"target_epsilon": 0.1},
    {"target_epsilon": math.inf},
    {"delta": 1e-2},
    {"rounds": 1},
    {"steps_per_round": 1},
    {"noise": "none"},
    {"noise": "local"},
    {"unit": "record"},
    {"sampling": "poisson", "sampling_rate": 0.1},
]


@settings(max_examples=100, deadline=None)
@given(
    number=st.integers(0, 4),
    lies=st.lists(st.sampled_from(LIES), max_size=3),
    max_epsilon=st.sampled_from([0.5, 2.0, 8.0, 20.0]),
    max_delta=st.sampled_from([1e-5, 1e-4, 1e-2]),
    unit=st.sampled_from(["any", "record", "client"]),
)
def test_no_plan_that_spends_more_than_the_owner_allows_ever_passes(
    honest_runs: list[tuple[Config, PrivacyPlan]],
    number: int,
    lies: list[dict[str, Any]],
    max_epsilon: float,
    max_delta: float,
    unit: str,
) -> None:
    config, plan = honest_runs[number]
    for lie in lies:
        plan = replace(plan, **lie)
    limits = owners(max_epsilon=max_epsilon, max_delta=max_delta, unit=unit)
    try:
        limits.check(config, plan)
    except (PolicyViolation, PrivacyError):
        return
    whole_run = [plan.round_event] * config.training.rounds
    assert spent(whole_run, max_delta, plan.unit).epsilon <= max_epsilon
    assert spent(whole_run, max_delta, limits.budget.unit).epsilon <= max_epsilon
