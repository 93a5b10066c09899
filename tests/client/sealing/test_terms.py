"""One run has one plan, one configuration and one minimum, even if a server says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calyx.authority.local import LocalAuthority
from calyx.client.deployment.enrolment import POLICY as FIRST_POLICY
from calyx.client.policy import Policy, SealingLimits
from calyx.client.sealing.terms import SealingTerms
from calyx.shared.config import Config
from calyx.shared.config.load import build, from_settings
from calyx.shared.errors import CalyxError, PolicyViolation, ProtocolError
from calyx.shared.privacy.plan import PrivacyPlan, draft_plan, make_plan
from calyx.shared.protocol.sealed.admission import Admission
from calyx.shared.protocol.sealed.messages import common_plan_digest, sealing_parameters, sum_shape
from tests.client.sealed_device import CONFIG, POLICY, Side


@pytest.fixture
def side(tmp_path: Path) -> Iterator[Side]:
    with LocalAuthority(tmp_path / "authority", min_contributors=2) as authority:
        yield Side(tmp_path, authority)


def with_minimum(count: int) -> Config:
    sealing = CONFIG.secure_aggregation.model_copy(update={"min_contributors": count})
    return CONFIG.model_copy(update={"secure_aggregation": sealing})


def owner_wants(side: Side, count: int) -> None:
    text = POLICY.replace("min_contributors = 2", f"min_contributors = {count}")
    (side.folder / "policy.toml").write_text(text)


def other_plan(side: Side) -> PrivacyPlan:
    """A plan that the device would accept if it were alone: of a run with larger clients."""
    plan = replace(side.plan, declared_records=1000, expected_batch_size=1000.0)
    assert sealing_parameters(CONFIG, plan, side.parameters.length) == side.parameters
    return plan


def refused_uncharged(side: Side, match: str, call: Callable[[], object]) -> None:
    with pytest.raises(CalyxError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert side.charges() == []


def test_device_told_another_plan_than_was_signed_refuses_before_it_charges(side: Side) -> None:
    """Its own noise would be right, and the others' noise in its sum only a part of it."""
    side.admit("first")
    plan = other_plan(side)
    refused_uncharged(side, "privacy plan that this device was told", lambda: side.train(plan=plan))
    side.train()
    assert side.charges() == [("first", 1)]


def test_run_whose_signed_plan_is_another_is_refused_by_those_with_the_right_one(
    side: Side,
) -> None:
    side.admit("first", plan=other_plan(side))
    refused_uncharged(side, "privacy plan that this device was told", side.train)


def test_offer_for_another_configuration_is_refused(side: Side) -> None:
    other = CONFIG.model_copy(update={"seed": 7})
    with pytest.raises(PolicyViolation, match="configuration that this device was told"):
        side.admit("first", config=other, signed=CONFIG)
    refused_uncharged(side, "not admitted", side.train)


def test_run_that_was_offered_cannot_train_under_another_configuration(side: Side) -> None:
    """Two of Flower's runs, one name: the offer in one of them, the instructions in the other."""
    stricter = with_minimum(3)
    plan = make_plan(stricter, 60, sum_shape(stricter, side.parameters.length))
    side.admit("first")
    refused_uncharged(
        side,
        "configuration that this device was told",
        lambda: side.train(config=stricter, plan=plan),
    )


def test_offer_below_the_owners_minimum_is_refused_whatever_the_configuration_says(
    side: Side,
) -> None:
    owner_wants(side, 3)
    with pytest.raises(PolicyViolation, match="2 was requested, the policy allows at least 3"):
        side.admit("first")
    with pytest.raises(PolicyViolation, match="would release sums of 2 clients.* requires 3"):
        side.admit("second", config=with_minimum(3), minimum=2)
    owner_wants(side, 2)
    refused_uncharged(side, "not admitted", lambda: side.train("second"))


def test_owner_who_raises_the_minimum_stops_a_run_that_was_accepted(side: Side) -> None:
    side.admit("first")
    owner_wants(side, 3)
    refused_uncharged(side, "at least 3", side.train)


def test_noise_counts_on_no_more_contributors_than_the_authority_asks_for(side: Side) -> None:
    """Checked against the plan's shares too, not only against the configuration."""
    mechanism = side.plan.mechanism
    assert mechanism is not None
    counting_on_three = replace(side.plan, mechanism=replace(mechanism, shares=3))
    terms = SealingTerms.of("run", "device", CONFIG, side.parameters, 0, counting_on_three)
    assert terms.least == 3
    assert SealingTerms.of("run", "device", CONFIG, side.parameters, 5, side.plan).least == 5


def test_long_names_of_two_runs_do_not_share_an_admission(side: Side) -> None:
    common = "r" * 90
    side.admit(f"{common}-1")
    refused_uncharged(side, "not admitted", lambda: side.train(f"{common}-2"))


def test_admission_that_was_exchanged_after_the_charge_seals_nothing(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    import calyx.client.round as client_round

    side.admit("first")
    folder = side.folder / "admissions"
    ours = {path.suffix: path for path in folder.iterdir()}
    side.admit("second")
    real = client_round.integers_to_seal

    def exchanging(*arguments: object) -> object:
        for path in set(folder.iterdir()) - set(ours.values()):
            ours[path.suffix].write_bytes(path.read_bytes())
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(client_round, "integers_to_seal", exchanging)
    with pytest.raises(ProtocolError, match="another run or client"):
        side.train()


def test_kept_admission_that_the_authority_did_not_sign_is_not_charged(side: Side) -> None:
    """Anyone who can write the device's files still needs the authority's signature."""
    side.admit("first")
    (path,) = (side.folder / "admissions").glob("*.json")
    text = path.read_text()
    assert text.count(side.plan.digest) == 1
    path.write_text(text.replace(side.plan.digest, other_plan(side).digest))
    refused_uncharged(side, "not signed by", lambda: side.train(plan=other_plan(side)))
    path.write_text("{}")
    refused_uncharged(side, "not admitted", side.train)


ADMITTED = {
    "run": "run",
    "contributor": "device",
    "context_hash": "0" * 64,
    "min_contributors": 3,
    "is_tagged": True,
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"run": "another"}, "another run or client"),
        ({"contributor": "another"}, "another run or client"),
        ({"parameters_digest": "f" * 64}, "sealing parameters that this device was told"),
        ({"config_digest": ""}, "configuration that this device was told"),
        ({"plan_digest": ""}, "privacy plan that this device was told"),
        ({"is_tagged": False}, "another scheme"),
        ({"min_contributors": 2}, "sums of 2 clients"),
    ],
    ids=str,
)
def test_every_term_of_an_admission_is_compared(
    side: Side, change: dict[str, object], said: str
) -> None:
    terms = SealingTerms.of("run", "device", CONFIG, side.parameters, 3, side.plan)
    right = Admission(
        parameters_digest=side.parameters.digest,
        plan_digest=side.plan.digest,
        config_digest=terms.config_digest,
        **ADMITTED,  # type: ignore[arg-type]
    )
    terms.check(right)
    with pytest.raises((PolicyViolation, ProtocolError), match=said):
        terms.check(replace(right, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("noise", "is_shared"), [("local", False), ("none", True)], ids=lambda value: str(value)
)
def test_plan_is_bound_wherever_the_noise_of_others_counts(noise: str, is_shared: bool) -> None:
    settings = [f"privacy.noise={noise}", "secure_aggregation.scheme=bfv"]
    plan = draft_plan(build(from_settings(settings)), 100)
    assert common_plan_digest(plan) == (plan.digest if is_shared else "")


def test_sums_of_two_are_nobodys_default() -> None:
    """Two is for those who say it, each in its own settings."""
    assert Config().secure_aggregation.min_contributors == 3
    assert SealingLimits().min_contributors == 3
    assert "min_contributors = 3 " in FIRST_POLICY
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        SealingLimits(min_contributors=1)


def test_owners_policy_is_the_one_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(FIRST_POLICY)
    assert Policy.load(path).secure_aggregation.min_contributors == 3


def test_offer_for_a_run_that_is_not_sealed_is_refused() -> None:
    policy = Policy.model_validate(
        {"privacy": {"max_epsilon": 8.0, "max_delta": 1e-4, "unit": "record"}}
    )
    with pytest.raises(PolicyViolation, match="scheme = none was requested"):
        policy.check_offer(Config())
    policy.check_offer(with_minimum(3))
    assert np.isfinite(policy.privacy.max_epsilon)


def test_a_server_cannot_fill_the_disk_with_runs(side: Side) -> None:
    folder = side.folder / "admissions"
    for number in range(23):
        side.admit(f"run-{number}")
    assert len(list(folder.glob("*.json"))) == len(list(folder.glob("*.context"))) == 20
    with pytest.raises(PolicyViolation, match="not admitted"):
        side.train("run-2")
    assert side.charges() == []
    side.train("run-22")
