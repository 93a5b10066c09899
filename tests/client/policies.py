"""Policies and runs for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from calyx.client.policy import Policy
from calyx.shared.config import Config
from calyx.shared.config.load import build, from_settings
from calyx.shared.errors import PolicyViolation
from calyx.shared.privacy.plan import PrivacyPlan, SumShape, make_plan

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
    """A policy of these privacy limits whose owner lets counts leave, otherwise the defaults."""
    limits = {"max_epsilon": 8.0, "max_delta": 1e-4, "unit": "any"} | privacy
    return Policy.model_validate({"privacy": limits, "release": {"record_counts": True}})


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
