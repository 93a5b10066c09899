"""Choosing the grid, and what the mechanism promises."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest

from calyx.shared.encryption import derive_parameters, largest_value_bound
from calyx.shared.encryption.quantise import (
    IntegerGrid,
    bounded_rounding,
    clipped,
    dithered_rounding,
)
from calyx.shared.errors import PrivacyError
from calyx.shared.privacy.accounting import spent
from calyx.shared.privacy.event import PrivacyEvent
from calyx.shared.privacy.rotation import Rotation
from calyx.shared.privacy.skellam import gaussian_epsilon
from calyx.shared.privacy.skellam_mechanism import (
    SkellamMechanism,
    calibrate_mechanism,
    fit_mechanism,
)

DIGITS = partial(
    fit_mechanism,
    dimension=9258,
    clip_norm=1.0,
    shares=8,
    contributors=10,
    releases=40,
    signal_norm=40.0,
    value_bound=32767,
)
FASHION = partial(
    fit_mechanism,
    dimension=421_642,
    clip_norm=1.0,
    shares=40,
    contributors=50,
    releases=150,
    signal_norm=30.0,
    value_bound=10_485,
)


@pytest.mark.parametrize(
    ("fit", "noise_multiplier", "delta", "rate"),
    [
        (DIGITS, 8.4, 1e-4, 1.0),
        (DIGITS, 3.7, 1e-4, 1.0),
        (DIGITS, 3.29, 1e-4, 0.3),
        (FASHION, 1.35, 1e-5, 0.05),
        (FASHION, 0.86, 1e-5, 1 / 60),
    ],
)
def test_two_fields_a_slot_cost_less_than_a_hundredth_of_epsilon(
    fit, noise_multiplier, delta, rate
):
    mechanism = fit(noise_multiplier=noise_multiplier)
    p = derive_parameters(
        scheme="bfv",
        contributors=mechanism.contributors,
        value_bound=mechanism.value_bound,
        length=mechanism.dimension,
    )
    assert p.fields_per_slot == 2
    gaussian = gaussian_epsilon(
        noise_multiplier, delta, releases=mechanism.releases, sampling_rate=rate
    )
    skellam = mechanism.epsilon(delta, sampling_rate=rate)
    assert gaussian < skellam < 1.01 * gaussian


def test_the_finest_grid_that_fits_is_taken():
    mechanism = DIGITS(noise_multiplier=8.4)
    assert mechanism.value_bound <= 32767
    finer = replace(
        mechanism,
        scaled_norm=mechanism.scaled_norm * 1.002,
        clamp=math.ceil(mechanism.clamp * 1.002),
    )
    assert finer.value_bound > 32767
    assert mechanism.step == pytest.approx(mechanism.clip_norm / mechanism.scaled_norm)


def test_wider_fields_bring_epsilon_towards_the_gaussian():
    gaussian = gaussian_epsilon(8.4, 1e-4, releases=40)
    overheads = [
        DIGITS(noise_multiplier=8.4, value_bound=2**bits - 1).epsilon(1e-4) / gaussian - 1
        for bits in (12, 13, 14, 15, 16)
    ]
    assert overheads == sorted(overheads, reverse=True)
    assert overheads[0] > 0.02
    assert overheads[-1] < 0.001


@pytest.mark.parametrize("rounding", ["dithered", "conditional"])
def test_the_client_unit_has_two_roundings_and_dithering_is_cheaper(rounding):
    mechanism = fit_mechanism(
        rounding=rounding,
        dimension=9258,
        clip_norm=0.5,
        noise_multiplier=4.0,
        shares=8,
        contributors=10,
        releases=30,
        signal_norm=1.0,
        value_bound=32767,
    )
    gaussian = gaussian_epsilon(4.0, 1e-4, releases=30)
    epsilon = mechanism.epsilon(1e-4)
    assert gaussian < epsilon < 1.01 * gaussian
    if rounding == "conditional":
        assert epsilon > replace(mechanism, rounding="dithered").epsilon(1e-4)
        assert mechanism.norm_bound < 1.01 * mechanism.scaled_norm
    else:
        assert mechanism.norm_bound == math.inf


def test_calibration_keeps_the_promise_and_wastes_little():
    mechanism = calibrate_mechanism(lambda s: DIGITS(noise_multiplier=s), epsilon=3.0, delta=1e-4)
    assert 2.995 < mechanism.epsilon(1e-4) <= 3.0
    # 8.405 for the continuous Gaussian.
    assert 8.405 < mechanism.noise_multiplier < 8.43


def test_calibration_under_sampling():
    mechanism = calibrate_mechanism(
        lambda s: DIGITS(noise_multiplier=s, releases=60),
        epsilon=3.0,
        delta=1e-4,
        sampling_rate=0.3,
    )
    assert 2.99 < mechanism.epsilon(1e-4, sampling_rate=0.3) <= 3.0


def test_a_budget_that_no_grid_can_keep_is_refused():
    with pytest.raises(PrivacyError, match="raise secure_aggregation"):
        calibrate_mechanism(
            lambda s: DIGITS(noise_multiplier=s, value_bound=500), epsilon=3.0, delta=1e-4
        )


def test_noise_that_does_not_fit_is_refused():
    with pytest.raises(PrivacyError, match="does not fit fields up to 31"):
        DIGITS(noise_multiplier=8.4, value_bound=31)


def test_a_few_releases_cost_less_than_all():
    mechanism = DIGITS(noise_multiplier=8.4)
    costs = [mechanism.epsilon(1e-4, releases=n) for n in (1, 10, 40)]
    assert costs == sorted(costs)
    assert costs[-1] == mechanism.epsilon(1e-4)


def test_a_delta_below_what_cutting_the_noise_costs_gives_no_guarantee():
    mechanism = DIGITS(noise_multiplier=8.4)
    assert mechanism.epsilon(1e-10) < 6
    assert mechanism.epsilon(1e-15) == math.inf


def test_each_run_of_a_ledger_adds_its_own_chance_of_a_cut():
    """A hundred runs of one round: a hundred times the chance that one run of a hundred has."""

    def cost(mechanism: SkellamMechanism, runs: int) -> float:
        events = [
            PrivacyEvent("skellam", "record", 3.2, "full", 1.0, mechanism.releases, other, None)
            for other in (replace(mechanism, clamp=mechanism.clamp + n) for n in range(runs))
        ]
        return spent(events, 1e-5).epsilon

    one_long = cost(DIGITS(noise_multiplier=3.2, releases=100), 1)
    assert 16 < one_long < 20
    short = DIGITS(noise_multiplier=3.2, releases=1)
    # 100 p e^(eps + 1) is above delta: nothing is left to promise.
    assert cost(short, 100) == math.inf
    assert cost(short, 10) < one_long
    assert short.epsilon(1e-5, releases=100) == math.inf


def test_shares_add_up_and_keep_their_limit():
    mechanism = DIGITS(noise_multiplier=8.4)
    shares = [mechanism.noise(np.random.default_rng(seed)) for seed in range(mechanism.shares)]
    assert all(np.abs(share).max() <= mechanism.noise_limit for share in shares)
    total = sum(shares)
    # The sample variance of 9,258 normal values: five standard errors, false alarm 6e-7.
    assert total.var() == pytest.approx(mechanism.variance, rel=5 * math.sqrt(2 / 9258))
    # No honest draw ever comes near the limit.
    assert np.abs(shares[0]).max() < 0.6 * mechanism.noise_limit


@pytest.mark.parametrize("rounding", ["dithered", "conditional"])
def test_a_whole_round_stays_in_bounds_and_returns_the_sum(rounding):
    mechanism = fit_mechanism(
        rounding=rounding,
        dimension=3000,
        clip_norm=2.0,
        noise_multiplier=0.05,
        shares=4,
        contributors=4,
        releases=10,
        signal_norm=1.0,
        value_bound=largest_value_bound(contributors=4, fields_per_slot=2),
    )
    generator, turn = np.random.default_rng(8), Rotation(3000, b"round 1")
    grid = IntegerGrid(mechanism.step, mechanism.clamp)
    vectors = [clipped(generator.standard_normal(3000), 2.0) for _ in range(4)]
    sent = []
    for x in vectors:
        scaled = grid.scaled(turn.forward(x))
        assert np.linalg.norm(scaled) <= mechanism.scaled_norm * (1 + 1e-9)
        if rounding == "conditional":
            w = bounded_rounding(scaled, mechanism.norm_bound, generator)
        else:
            w = dithered_rounding(scaled, generator)
        sent.append(w + mechanism.noise(generator))
    assert max(np.abs(v).max() for v in sent) <= mechanism.value_bound
    restored = turn.inverse(grid.restored(sum(sent)))
    # Noise of deviation 0.05 C = 0.1 a coordinate, plus rounding far below it.
    assert np.std(restored - sum(vectors)) == pytest.approx(0.1, rel=0.1)


GOOD = SkellamMechanism("dithered", 10, 1.0, 1.0, 100.0, 2, 3, 5, 20)


@pytest.mark.parametrize(
    "changes",
    [
        {"rounding": "down"},
        {"dimension": 0},
        {"dimension": 2.5},
        {"clip_norm": 0.0},
        {"noise_multiplier": 0.0},
        {"noise_multiplier": math.nan},
        {"scaled_norm": math.inf},
        {"shares": 0},
        {"shares": 4},
        {"releases": -1},
        {"clamp": 0},
    ],
    ids=str,
)
def test_impossible_mechanisms_are_refused(changes):
    with pytest.raises(PrivacyError, match="not a valid Skellam mechanism"):
        SkellamMechanism(**{**asdict(GOOD), **changes})
