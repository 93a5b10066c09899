"""What the owner's policy lets pass, what it refuses, and that no server can get around it."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from calyx.client.policy import Policy
from calyx.shared.errors import PolicyViolation
from tests.client.policies import config, owners, refusal, run


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
            (
                owners(noise=["central"], unit="client"),
                ("privacy.noise=central", "privacy.unit=client"),
            ),
            (
                owners(noise=["central"], max_epsilon=20.0),
                ("privacy.noise=central", "privacy.unit=client"),
            ),
            (owners(max_epsilon=math.inf, allow_unprotected=True), ("privacy.noise=none",)),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
    )
    def test_what_keeps_every_limit_passes(self, limits: Policy, lines: tuple[str, ...]) -> None:
        limits.check(*run(*lines))

    def test_more_epsilon_than_allowed_is_refused_with_both_numbers(self) -> None:
        text = refusal(owners(max_epsilon=3.0), *run())
        assert "epsilon = 8.00 for each record" in text
        assert "at most 3" in text

    @pytest.mark.parametrize(
        ("limits", "lines", "expected"),
        [
            (
                owners(unit="client"),
                (),
                "privacy.unit = record was requested, the policy allows client",
            ),
            (
                owners(unit="record"),
                ("privacy.unit=client",),
                "privacy.unit = client was requested, the policy allows record",
            ),
            (
                owners(max_delta=1e-5),
                (),
                "privacy.delta = 0.0001 was requested, the policy allows at most 1e-05",
            ),
            (
                owners(noise=["distributed"]),
                (),
                "privacy.noise = local was requested, the policy allows distributed",
            ),
            (
                owners(),
                ("privacy.noise=central", "privacy.unit=client"),
                "privacy.noise = central was requested, the policy allows local or distributed",
            ),
            (
                owners(),
                ("privacy.noise=none",),
                "privacy.noise = none was requested, the policy allows local or distributed",
            ),
            (
                owners(max_epsilon=math.inf),
                ("privacy.noise=none",),
                "privacy.noise = none was requested",
            ),
            (
                owners(),
                ("privacy.release_metrics=true",),
                "privacy.release_metrics = true was requested, the policy allows false",
            ),
            (
                owners(),
                ("privacy.release_metrics=true", "federation.client_evaluation=true"),
                "federation.client_evaluation = true was requested, the policy allows false",
            ),
            (
                owners(),
                ("model.name=os:system",),
                "model.name = os:system was requested, the policy allows the models built in",
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
                "secure_aggregation.scheme = none was requested, the policy allows bfv",
            ),
            (
                "secure_aggregation",
                {"min_contributors": 6},
                ("secure_aggregation.scheme=bfv", "secure_aggregation.min_contributors=5"),
                "min_contributors = 5 was requested, the policy allows at least 6",
            ),
            (
                "secure_aggregation",
                {"required": True, "accept_untagged": True},
                (),
                "secure_aggregation.scheme = none was requested, the policy allows bfv or ckks",
            ),
            (
                "training",
                {"models": ["lstm", "mine:net"]},
                (),
                "model.name = cnn was requested, the policy allows lstm or mine:net",
            ),
            (
                "training",
                {"max_local_steps": 3},
                (),
                "steps a round = 4 was requested, the policy allows at most 3",
            ),
            (
                "training",
                {"max_rounds": 29},
                (),
                "training.rounds = 30 was requested, the policy allows at most 29",
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
        expected = "secure_aggregation.scheme = ckks was requested, the policy allows bfv"
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
        limits = Policy.model_validate(
            owners().model_dump() | {"release": {"metrics": True, "record_counts": True}}
        )
        limits.check(*run(*lines))
        limits.check_evaluation(run(*lines)[0])
        with pytest.raises(PolicyViolation, match="exact metrics"):
            owners().check_evaluation(run(*lines)[0])

    def test_an_evaluation_may_not_run_code_of_the_servers_choice(self) -> None:
        limits = Policy.model_validate(
            owners().model_dump() | {"release": {"metrics": True, "record_counts": True}}
        )
        with pytest.raises(PolicyViolation, match=r"os:system"):
            limits.check_evaluation(config("model.name=os:system"))

    @pytest.mark.parametrize("noise", ["central", "distributed"])
    def test_where_any_unit_will_do_a_client_level_promise_must_hold_for_records(
        self, noise: str
    ) -> None:
        """8 for a client whose update is replaced by zero is more than 17 for a record."""
        scheme = "bfv" if noise == "distributed" else "none"
        lines = (f"privacy.noise={noise}", f"secure_aggregation.scheme={scheme}")
        asked = run(*lines, "privacy.unit=client")
        text = refusal(owners(noise=[noise]), *asked)
        assert re.search(r"epsilon = 1[789]\.\d\d for each record was requested", text)
        owners(noise=[noise], max_epsilon=20.0).check(*asked)

    def test_where_any_unit_will_do_the_budget_counts_every_event(self) -> None:
        assert owners(unit="any").budget.unit == "record"
        assert owners(unit="client").budget.unit == "client"
