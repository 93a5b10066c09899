"""Plans of sealed runs: grid, fields and sampler fit each other, or the plan says what would."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from calyx.authority.keys.key_pair import KeyPair
from calyx.server.roster import Member
from calyx.server.round.plans import Plans
from calyx.shared.config.load import build, from_settings
from calyx.shared.config.schema import MAX_BITS
from calyx.shared.encryption import Aggregator, PublicSealer, derive_parameters, unpack_sum
from calyx.shared.encryption.quantise import IntegerGrid, dithered_rounding
from calyx.shared.errors import ConfigError, PrivacyError
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.privacy.skellam import gaussian_epsilon, skellam_noise

_LENGTH = 40  # of the vectors that are actually sealed; the mechanism is that of the whole model


def config(contributors: int, bits: int, least: int, epsilon: float = 3.0):
    return build(
        from_settings(
            [
                f"federation.clients={contributors}",
                f"secure_aggregation.bits={bits}",
                f"secure_aggregation.min_contributors={least}",
                "secure_aggregation.scheme=bfv",
                "privacy.noise=distributed",
                "privacy.sampling=full",
                f"privacy.epsilon={epsilon}",
                "training.rounds=50",
            ]
        )
    )


def plan_of(made, dimension: int, records: int = 144):
    return Plans(made, [Member("0", records)], dimension).of(Member("0", records))


@settings(max_examples=60, deadline=None)
@given(
    contributors=st.one_of(st.integers(2, 130), st.integers(131, 2000)),
    bits=st.integers(2, MAX_BITS),
    dimension=st.one_of(st.integers(1, 100_000), st.integers(100_001, 10**8)),
    share=st.floats(0.5, 1.0),
    epsilon=st.sampled_from([0.5, 3.0, 8.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_whatever_is_planned_can_be_drawn_sealed_added_and_opened(
    contributors, bits, dimension, share, epsilon, seed
):
    least = max(3, math.ceil(share * contributors))
    assume(least <= contributors)
    made = config(contributors, bits, least, epsilon)
    try:
        mechanism = plan_of(made, dimension).mechanism
    except ConfigError as error:
        assert [fault.key for fault in error.faults] == ["secure_aggregation.bits"]
        return
    p = derive_parameters(
        scheme="bfv", contributors=contributors, value_bound=mechanism.value_bound, length=_LENGTH
    )
    pair, generator = KeyPair.generate(p), np.random.default_rng(seed)
    sealer, adder = PublicSealer(p, pair.public_context()), Aggregator(p, pair.public_context())
    total = np.zeros(_LENGTH, dtype=np.int64)
    for _ in range(2):
        x = generator.normal(size=_LENGTH) * mechanism.clamp * mechanism.step
        values = dithered_rounding(
            IntegerGrid(mechanism.step, mechanism.clamp).scaled(x), generator
        )
        values += drawn(mechanism, generator)
        adder.add(sealer.seal(values))
        total += values
    opened = unpack_sum(pair.decrypt(pair.read(adder.finish().chunks)), p, 2)
    assert np.array_equal(opened, total)


def drawn(mechanism, generator):
    """A few coordinates of one client's noise; for the longest vectors no more are drawn."""
    if mechanism.dimension <= 100_000:
        return np.resize(mechanism.noise(generator), _LENGTH)
    noise = skellam_noise(generator, _LENGTH, mechanism.share_variance)
    return np.clip(noise, -mechanism.noise_limit, mechanism.noise_limit)


@pytest.mark.parametrize("contributors", [65, 100, 1000])
def test_more_clients_than_share_a_slot_cost_no_more_noise_than_few(contributors):
    plan = plan_of(config(contributors, 14, contributors // 2), 53_002)
    gaussian = gaussian_epsilon(plan.noise_multiplier, plan.delta, releases=plan.rounds)
    assert gaussian <= plan.spent(plan.rounds).epsilon < 1.001 * gaussian


def test_a_width_that_is_too_small_is_refused_with_the_nearest_that_will_do():
    with pytest.raises(ConfigError) as caught:
        plan_of(config(10, 2, 8), 53_002)
    (fault,) = caught.value.faults
    least = int(re.search(r"at least (\d+)", fault.allowed)[1])
    assert plan_of(config(10, least, 8), 53_002).mechanism
    with pytest.raises(ConfigError):
        plan_of(config(10, least - 1, 8), 53_002)


def test_a_plan_whose_noise_nobody_can_draw_is_refused_when_it_is_read():
    plan = plan_of(config(65, 14, 8), 53_002)
    finer = replace(plan.mechanism, scaled_norm=plan.mechanism.scaled_norm / 2)
    fields = json.loads(replace(plan, mechanism=finer).to_json())
    fields["mechanism"]["scaled_norm"] = 4 * plan.mechanism.scaled_norm
    with pytest.raises(PrivacyError, match="can be drawn"):
        PrivacyPlan.from_json(json.dumps(fields))


def test_the_share_of_noise_that_rounding_takes_is_what_calibration_adds():
    coarse = plan_of(config(500, 14, 400), 53_002)
    rough = plan_of(config(500, 8, 400), 53_002)
    extra = rough.noise_multiplier / coarse.noise_multiplier - 1
    assert extra > 0.3
    assert rough.mechanism.rounding_overhead == pytest.approx(extra, rel=0.02)
