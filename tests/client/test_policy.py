"""What the owner's policy lets pass, what it refuses, and that a server cannot talk around it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.ledger import Budget
from client.policy import Policy
from shared.config import Config
from shared.config.load import build, from_settings
from shared.errors import ConfigError, PolicyViolation, PrivacyError
from shared.privacy.accounting import spent
from shared.privacy.plan import PrivacyPlan, SumShape, make_plan

MINIMAL = """
[privacy]
max_epsilon = 8
max_delta = 1e-4
unit = "record"
"""


def policy(text: str, folder: Path) -> Policy:
    path = folder / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return Policy.load(path)


def owners(**privacy: Any) -> Policy:
    """A policy of these privacy limits, otherwise the defaults."""
    limits = {"max_epsilon": 8.0, "max_delta": 1e-4, "unit": "any"} | privacy
    return Policy.model_validate({"privacy": limits})


def config(*lines: str) -> Config:
    return build(from_settings(lines))


def run(*lines: str) -> tuple[Config, PrivacyPlan]:
    """A run as an honest server sends it."""
    made = config(*lines)
    return made, make_plan(made, 144, SumShape(1000, 8191))


def refusal(limits: Policy, config: Config, plan: PrivacyPlan) -> str:
    with pytest.raises(PolicyViolation) as caught:
        limits.check(config, plan)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestReading:
    def test_three_keys_make_a_policy_and_the_rest_is_strict(self, tmp_path: Path) -> None:
        read = policy(MINIMAL, tmp_path)
        assert read.budget == Budget(8.0, 1e-4, "record")
        assert read.privacy.noise == ("local", "distributed")
        assert not read.privacy.allow_unprotected
        assert not read.release.metrics
        assert not read.secure_aggregation.required

    def test_every_key_of_the_documentation_is_read(self, tmp_path: Path) -> None:
        read = policy(
            """
            [privacy]
            max_epsilon = inf
            max_delta = 1e-5
            unit = "any"
            noise = ["local", "central"]
            allow_unprotected = true
            [secure_aggregation]
            required = true
            min_contributors = 5
            [training]
            models = ["cnn", "mine:net"]
            max_local_steps = 500
            max_rounds = 1000
            [release]
            metrics = true
            """,
            tmp_path,
        )
        assert read.privacy.noise == ("local", "central")
        assert math.isinf(read.budget.epsilon)
        assert read.secure_aggregation.min_contributors == 5
        assert read.training.models == ("cnn", "mine:net")
        assert (read.training.max_local_steps, read.training.max_rounds) == (500, 1000)
        assert read.release.metrics

    def test_a_policy_without_limits_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="only the owner can decide") as caught:
            policy("[privacy]\nunit = 'record'", tmp_path)
        assert [fault.key for fault in caught.value.faults] == [
            "privacy.max_epsilon",
            "privacy.max_delta",
        ]
        with pytest.raises(ConfigError, match="privacy"):
            policy("", tmp_path)

    def test_all_faults_are_told_at_once_and_unknown_keys_get_a_suggestion(
        self, tmp_path: Path
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            policy(
                """
                [privacy]
                max_epsilon = -1
                max_delta = 1
                unit = "house"
                noise = ["loud"]
                max_epsilonn = 3
                [secure_agregation]
                required = true
                [training]
                max_local_step = 3
                max_rounds = 0
                [release]
                metrics = "yes"
                """,
                tmp_path,
            )
        shown = {fault.key: fault.allowed for fault in caught.value.faults}
        assert shown.keys() == {
            "privacy.max_epsilon",
            "privacy.max_delta",
            "privacy.unit",
            "privacy.noise.0",
            "privacy.max_epsilonn",
            "secure_agregation",
            "training.max_local_step",
            "training.max_rounds",
            "release.metrics",
        }
        assert shown["privacy.max_epsilonn"].endswith("did you mean privacy.max_epsilon?")
        assert shown["training.max_local_step"].endswith("did you mean training.max_local_steps?")
        assert shown["secure_agregation"].endswith("did you mean secure_aggregation?")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("value", ["nan", "'8'", "true", "0", "-inf", "[8]"])
    def test_a_limit_is_a_positive_number_and_nothing_like_one(
        self, tmp_path: Path, value: str
    ) -> None:
        with pytest.raises(ConfigError, match=r"privacy\.max_epsilon"):
            policy(MINIMAL.replace("= 8", f"= {value}"), tmp_path)

    def test_unprotected_training_needs_the_owner_to_give_up_the_limit_as_well(
        self, tmp_path: Path
    ) -> None:
        with pytest.raises(ConfigError, match="max_epsilon = inf"):
            policy(MINIMAL + "allow_unprotected = true", tmp_path)

    @pytest.mark.parametrize("content", [b"[privacy", b"\xff\xfe", b"a = 1\na = 2"])
    def test_what_is_no_toml_is_one_clear_error(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "policy.toml"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"policy\.toml") as caught:
            Policy.load(path)
        assert "\n" not in str(caught.value)

    def test_a_missing_policy_or_a_folder_is_one_clear_error(self, tmp_path: Path) -> None:
        for path in (tmp_path / "none.toml", tmp_path):
            with pytest.raises(ConfigError, match="cannot be read"):
                Policy.load(path)


class TestLimits:
    @pytest.mark.parametrize(
        ("limits", "lines"),
        [
            (owners(), ()),
            (owners(unit="record"), ()),
            (owners(unit="client"), ("privacy.unit=client",)),
            (owners(max_epsilon=20.0), ("privacy.epsilon=20",)),
            (owners(), ("privacy.delta=1e-6", "privacy.epsilon=1")),
            (
                owners(),
                (
                    "privacy.noise=distributed",
                    "secure_aggregation.scheme=bfv",
                    "secure_aggregation.min_contributors=5",
                ),
            ),
            (owners(noise=["central"]), ("privacy.noise=central", "privacy.unit=client")),
            (owners(max_epsilon=math.inf, allow_unprotected=True), ("privacy.noise=none",)),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
    )
    def test_what_keeps_every_limit_passes(self, limits: Policy, lines: tuple[str, ...]) -> None:
        limits.check(*run(*lines))

    def test_more_epsilon_than_allowed_is_refused_with_both_numbers(self) -> None:
        text = refusal(owners(max_epsilon=3.0), *run())
        assert "epsilon = 7.99" in text or "epsilon = 8" in text
        assert "at most 3" in text

    @pytest.mark.parametrize(
        ("limits", "lines", "expected"),
        [
            (
                owners(unit="client"),
                (),
                "privacy.unit = record was asked, allowed is client",
            ),
            (
                owners(unit="record"),
                ("privacy.unit=client",),
                "privacy.unit = client was asked, allowed is record",
            ),
            (
                owners(max_delta=1e-5),
                (),
                "privacy.delta = 0.0001 was asked, allowed is at most 1e-05",
            ),
            (
                owners(noise=["distributed"]),
                (),
                "privacy.noise = local was asked, allowed is distributed",
            ),
            (
                owners(),
                ("privacy.noise=central", "privacy.unit=client"),
                "privacy.noise = central was asked, allowed is local or distributed",
            ),
            (
                owners(),
                ("privacy.noise=none",),
                "privacy.noise = none was asked, allowed is local or distributed",
            ),
            (
                owners(max_epsilon=math.inf),
                ("privacy.noise=none",),
                "privacy.noise = none was asked",
            ),
            (
                owners(),
                ("privacy.release_metrics=true",),
                "privacy.release_metrics = true was asked, allowed is false",
            ),
            (
                owners(),
                ("privacy.release_metrics=true", "federation.client_evaluation=true"),
                "federation.client_evaluation = true was asked, allowed is false",
            ),
            (
                owners(),
                ("model.name=os:system",),
                "model.name = os:system was asked, allowed is the models built in",
            ),
        ],
    )
    def test_what_breaks_a_limit_is_refused_by_name(
        self, limits: Policy, lines: tuple[str, ...], expected: str
    ) -> None:
        assert expected in refusal(limits, *run(*lines))

    @pytest.mark.parametrize(
        ("section", "limit", "lines", "expected"),
        [
            (
                "secure_aggregation",
                {"required": True},
                (),
                "secure_aggregation.scheme = none was asked, allowed is bfv;",
            ),
            (
                "secure_aggregation",
                {"min_contributors": 6},
                ("secure_aggregation.scheme=bfv", "secure_aggregation.min_contributors=5"),
                "secure_aggregation.min_contributors = 5 was asked, allowed is at least 6",
            ),
            (
                "secure_aggregation",
                {"required": True, "accept_untagged": True},
                (),
                "secure_aggregation.scheme = none was asked, allowed is bfv or ckks",
            ),
            (
                "training",
                {"models": ["lstm", "mine:net"]},
                (),
                "model.name = cnn was asked, allowed is lstm or mine:net",
            ),
            (
                "training",
                {"max_local_steps": 3},
                (),
                "steps a round = 4 was asked, allowed is at most 3",
            ),
            (
                "training",
                {"max_rounds": 29},
                (),
                "training.rounds = 30 was asked, allowed is at most 29",
            ),
        ],
    )
    def test_the_other_sections_bind_as_well(
        self, section: str, limit: dict[str, Any], lines: tuple[str, ...], expected: str
    ) -> None:
        limits = Policy.model_validate(owners().model_dump() | {section: limit})
        owners().check(*run(*lines))
        assert expected in refusal(limits, *run(*lines))

    def test_sums_that_nobody_can_check_need_the_owners_yes(self) -> None:
        ckks = run("secure_aggregation.scheme=ckks", "secure_aggregation.min_contributors=5")
        expected = "secure_aggregation.scheme = ckks was asked, allowed is bfv;"
        assert expected in refusal(owners(), *ckks)
        accepting = {"secure_aggregation": {"accept_untagged": True}}
        Policy.model_validate(owners().model_dump() | accepting).check(*ckks)

    @pytest.mark.parametrize(
        ("models", "name"),
        [([], "cnn"), (["cnn"], "cnn"), (["mine:net"], "mine:net"), (["*"], "any:thing")],
    )
    def test_allowed_models_pass(self, models: list[str], name: str) -> None:
        limits = Policy.model_validate(owners().model_dump() | {"training": {"models": models}})
        limits.check(*run(f"model.name={name}"))

    def test_every_violated_limit_is_named_together(self) -> None:
        limits = Policy.model_validate(
            {
                "privacy": {"max_epsilon": 1.0, "max_delta": 1e-6, "unit": "client"},
                "secure_aggregation": {"required": True},
                "training": {"models": ["lstm"], "max_rounds": 1, "max_local_steps": 1},
            }
        )
        text = refusal(limits, *run("privacy.release_metrics=true"))
        for key in (
            "privacy.unit",
            "privacy.delta",
            "epsilon =",
            "secure_aggregation.scheme",
            "model.name",
            "training.rounds",
            "steps a round",
            "privacy.release_metrics",
        ):
            assert key in text

    def test_metrics_may_leave_where_the_owner_says_so(self) -> None:
        lines = ("privacy.release_metrics=true", "federation.client_evaluation=true")
        limits = Policy.model_validate(owners().model_dump() | {"release": {"metrics": True}})
        limits.check(*run(*lines))
        limits.check_evaluation(run(*lines)[0])
        with pytest.raises(PolicyViolation, match="exact metrics"):
            owners().check_evaluation(run(*lines)[0])

    def test_an_evaluation_may_not_run_code_of_the_servers_choice(self) -> None:
        limits = Policy.model_validate(owners().model_dump() | {"release": {"metrics": True}})
        with pytest.raises(PolicyViolation, match=r"os:system"):
            limits.check_evaluation(config("model.name=os:system"))

    def test_where_any_unit_will_do_the_budget_counts_every_event(self) -> None:
        assert owners(unit="any").budget.unit == "record"
        assert owners(unit="client").budget.unit == "client"


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
