"""Each question about unit and noise has one answer, in the configuration and in a plan."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from calyx.shared.config import Config
from calyx.shared.config.load import build
from calyx.shared.config.schema import PrivacyConfig, Sections, SecureAggregationConfig
from calyx.shared.privacy.plan import draft_plan

UNITS, NOISES = ("record", "client"), ("none", "local", "distributed", "central")
# Of each pair: is_record_level, is_client_level, is_gradient_sum, is_noised_by_clients.
ANSWERS = {
    ("record", "none"): (False, False, False, False),
    ("record", "local"): (True, False, False, True),
    ("record", "distributed"): (True, False, True, True),
    ("record", "central"): (True, False, False, False),
    ("client", "none"): (False, False, False, False),
    ("client", "local"): (False, True, False, True),
    ("client", "distributed"): (False, True, False, True),
    ("client", "central"): (False, True, False, False),
}


@pytest.mark.parametrize(("unit", "noise"), product(UNITS, NOISES))
def test_configuration_and_plan_answer_alike(unit: str, noise: str) -> None:
    asked = PrivacyConfig.model_validate({"unit": unit, "noise": noise})
    plan = replace(draft_plan(Config(), 100), unit=unit, noise=noise)  # type: ignore[arg-type]
    for one in (asked, plan):
        found = (
            one.is_record_level,
            one.is_client_level,
            one.is_gradient_sum,
            one.is_noised_by_clients,
        )
        assert found == ANSWERS[unit, noise]
        assert one.is_private == (noise != "none")


@pytest.mark.parametrize(
    ("scheme", "noise", "is_sealed", "has_common_plan"),
    [
        ("none", "none", False, False),
        ("none", "local", False, False),
        ("bfv", "local", True, False),
        ("bfv", "none", True, True),
        ("bfv", "distributed", True, True),
        ("ckks", "distributed", True, True),
    ],
)
def test_clients_of_a_sealed_run_share_a_plan_unless_each_protects_itself(
    scheme: str, noise: str, is_sealed: bool, has_common_plan: bool
) -> None:
    sections = Sections(
        privacy=PrivacyConfig.model_validate({"noise": noise}),
        secure_aggregation=SecureAggregationConfig.model_validate({"scheme": scheme}),
    )
    assert (sections.is_sealed, sections.has_common_plan) == (is_sealed, has_common_plan)


def test_answers_are_no_settings() -> None:
    """They would enter the digest, and every stored configuration would have another."""
    stored = Config().model_dump()
    assert not {"is_sealed", "has_common_plan"} & (stored.keys() | stored["privacy"].keys())
    assert build(stored) == Config()
