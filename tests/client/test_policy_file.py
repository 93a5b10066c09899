"""The owner's file: what is a policy and what is not."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from calyx.client.ledger.ledger import Budget
from calyx.client.policy import Policy
from calyx.shared.errors import ConfigError
from tests.client.policies import MINIMAL, policy


class TestReading:
    def test_three_keys_make_a_policy_and_the_rest_is_strict(self, tmp_path: Path) -> None:
        read = policy(MINIMAL, tmp_path)
        assert read.budget == Budget(8.0, 1e-4, "record")
        assert read.privacy.noise == ("local", "distributed")
        assert not read.privacy.allow_unprotected
        assert not read.release.metrics and not read.release.record_counts
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
            record_counts = true
            """,
            tmp_path,
        )
        assert read.privacy.noise == ("local", "central")
        assert math.isinf(read.budget.epsilon)
        assert read.secure_aggregation.min_contributors == 5
        assert read.training.models == ("cnn", "mine:net")
        assert (read.training.max_local_steps, read.training.max_rounds) == (500, 1000)
        assert read.release.metrics and read.release.record_counts

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
        hints = {fault.key: fault.hint for fault in caught.value.faults if fault.hint}
        assert hints == {
            "privacy.max_epsilonn": "did you mean privacy.max_epsilon?",
            "training.max_local_step": "did you mean training.max_local_steps?",
            "secure_agregation": "did you mean secure_aggregation?",
        }
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
