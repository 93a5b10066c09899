"""Bounds against published figures, known mechanisms, and their own faults."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calyx.audit.bounds import clopper_pearson, cosine, fdp, gaussian, steinke
from calyx.audit.bounds.gdp import delta_of, epsilon_of, mu_of
from calyx.audit.bounds.guesses import Coins, Guesses, Scores, ceiling, guess_counts, guesses
from calyx.audit.bounds.trade_off import GaussianCurve, ProfileCurve
from calyx.audit.selftest.calibration import BOUNDS, ideal_canaries, sampled_canaries
from calyx.audit.subsampled import HYPOTHESES, curve_of, subsampled

DELTA = 1e-5


@pytest.mark.parametrize(
    ("made", "delta", "epsilon"),
    [
        (Guesses(1000, 100, 75), 1e-4, 0.673),
        (Guesses(100_000, 1510, 1439), 1e-5, 2.675),
        (Guesses(1000, 100, 75), 0.0, 0.702),
    ],
)
def test_steinke_gives_the_published_figures(made: Guesses, delta: float, epsilon: float) -> None:
    assert steinke.epsilon_of_guesses(made, delta) == pytest.approx(epsilon, abs=1e-3)


def test_the_delta_term_counts_all_canaries_and_not_only_guesses() -> None:
    few, many = Guesses(100, 100, 75), Guesses(10_000, 100, 75)
    assert steinke.epsilon_of_guesses(many, 1e-4) < steinke.epsilon_of_guesses(few, 1e-4)


@pytest.mark.parametrize(("made", "top"), [(100, 3.49), (1000, 5.81), (5000, 7.42)])
def test_no_number_of_right_guesses_shows_more_than_the_ceiling(made: int, top: float) -> None:
    assert ceiling(made) == pytest.approx(top, abs=0.01)
    all_right = steinke.epsilon_of_guesses(Guesses(made, made, made), 0.0)
    assert all_right == pytest.approx(ceiling(made), abs=1e-4)


# Means for ideal Gaussian canaries and five pre-set counts of guesses, of unknown shares.
REFERENCE = [
    (1.0, 1000, {"steinke": 0.14, "fdp": 0.19, "clopper_pearson": 0.02, "gaussian": 0.61}),
    (4.0, 1000, {"steinke": 1.47, "fdp": 2.02, "clopper_pearson": 0.89, "gaussian": 3.51}),
    (8.0, 1000, {"steinke": 2.80, "fdp": 4.16, "clopper_pearson": 2.16, "gaussian": 7.43}),
    (8.0, 5000, {"steinke": 3.31, "fdp": 4.66, "clopper_pearson": 2.95, "gaussian": 7.74}),
]
FIVE_SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)


@pytest.mark.parametrize(("epsilon", "canaries", "expected"), REFERENCE)
def test_bounds_are_as_sharp_as_the_reference(
    epsilon: float, canaries: int, expected: dict[str, float]
) -> None:
    mu = mu_of(epsilon, DELTA)
    seeds = 20 if canaries == 1000 else 5
    samples = [ideal_canaries(mu, canaries, seed) for seed in range(seeds)]
    for name, figure in expected.items():
        found = [_with_five_counts(name, *sample) for sample in samples]
        # The reference is a mean of some sample too: three standard errors of the difference of
        # two such means. Other shares move the means by less than 0.06.
        error = float(np.std(found, ddof=1)) * math.sqrt(2 / seeds)
        assert abs(float(np.mean(found)) - figure) <= 3 * error + 0.06, name


def _with_five_counts(name: str, scores: Scores, coins: Coins) -> float:
    if name == "gaussian":
        return gaussian.lower_bound(scores, coins, DELTA)
    bounds = {
        "steinke": steinke.lower_bound,
        "fdp": fdp.lower_bound,
        "clopper_pearson": clopper_pearson.lower_bound,
    }
    return bounds[name](scores, coins, DELTA, shares=FIVE_SHARES)


@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
def test_scores_that_say_nothing_give_zero_most_of_the_time(bound: object) -> None:
    found = [bound(*ideal_canaries(0.0, 400, seed), DELTA) for seed in range(60)]  # type: ignore[operator]
    # Each alarm has a chance of at most .05: more than 9 of 60 come once in some 1,800 tests.
    assert sum(value > 0 for value in found) <= 9


@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
def test_scores_that_are_not_numbers_are_refused(bound: object) -> None:
    scores, coins = ideal_canaries(1.0, 50, 0)
    scores[3] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        bound(scores, coins, DELTA)  # type: ignore[operator]
    with pytest.raises(ValueError, match="equally many"):
        bound(scores, coins[:-1], DELTA)  # type: ignore[operator]


def test_counts_of_guesses_do_not_depend_on_the_scores() -> None:
    counts = guess_counts(1000)
    assert counts == (100, 300)
    for seed in (0, 1):
        assert tuple(g.made for g in guesses(*ideal_canaries(2.0, 1000, seed))) == counts


@given(st.floats(0.05, 12), st.sampled_from([1e-4, 1e-5, 1e-6]))
@settings(max_examples=40, deadline=None)
def test_mu_and_epsilon_are_inverse_to_each_other(epsilon: float, delta: float) -> None:
    mu = mu_of(epsilon, delta)
    assert epsilon_of(mu, delta) == pytest.approx(epsilon, rel=1e-5)
    assert delta_of(mu, epsilon) == pytest.approx(delta, rel=1e-4)


def test_fdp_rejects_less_the_larger_the_hypothesis() -> None:
    grid = np.linspace(0, 6, 100)
    rejected = fdp.is_rejected(GaussianCurve(grid), Guesses(1000, 100, 90), 0.05, 100)
    assert rejected[0] and not rejected[-1]
    assert (np.diff(rejected.astype(int)) <= 0).all()


def gaussian_profile(mu: float) -> ProfileCurve:
    epsilons = np.concatenate([[0.0], np.geomspace(1e-3, 60, 600)])
    return ProfileCurve(epsilons, np.array([max(delta_of(mu, e), 0.0) for e in epsilons]))


@pytest.mark.parametrize("mu", [0.3, 1.0, 3.0])
def test_a_profile_gives_the_trade_off_curve_of_its_mechanism(mu: float) -> None:
    curve, exact = gaussian_profile(mu), GaussianCurve(np.array([mu]))
    powers = np.array([1e-4, 0.01, 0.2, 0.5, 0.8, 0.99, 0.9999])
    found = curve.least_false_alarms(powers)
    wanted = np.array([exact.least_false_alarms(np.array([x]))[0] for x in powers])
    # From below: a grid leaves lines out.
    assert (found <= wanted + 1e-12).all()
    assert found == pytest.approx(wanted, rel=5e-3)
    assert curve.epsilon(DELTA) == pytest.approx(epsilon_of(mu, DELTA), rel=1e-3)
    assert curve.epsilon(DELTA) <= epsilon_of(mu, DELTA) + 1e-9
    assert curve.epsilon(0.999) == 0.0


def test_hypotheses_from_profiles_give_the_bound_of_the_closed_form() -> None:
    mus = np.linspace(0.05, 4, 80)
    for seed in range(3):
        scores, coins = ideal_canaries(mu_of(4.0, DELTA), 500, seed)
        found = fdp.lower_bound_among(
            lambda number: gaussian_profile(mus[number]), len(mus), scores, coins, DELTA
        )
        exact = fdp.lower_bound(scores, coins, DELTA)
        assert found <= exact + 1e-9
        assert found == pytest.approx(exact, abs=0.3)  # one step of the hypotheses


def test_a_profile_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="growing epsilons"):
        ProfileCurve(np.array([0.0, 0.0]), np.array([0.1, 0.1]))


def test_sampled_batches_are_held_against_their_own_curves() -> None:
    truth = curve_of(1.4, 0.1, 100).epsilon(DELTA)
    own, closed = [], []
    for seed in range(4):
        scores, coins = sampled_canaries(1000, seed)
        family = subsampled(0.1, 100)
        own.append(fdp.lower_bound_among(family, HYPOTHESES, scores, coins, DELTA))
        closed.append(fdp.lower_bound(scores, coins, DELTA))
    assert 0 < np.mean(closed) < np.mean(own) < truth


def test_hypotheses_go_from_private_to_not() -> None:
    found = [subsampled(0.05, 200)(number) for number in range(0, HYPOTHESES, 60)]
    epsilons = [curve.epsilon(DELTA) for curve in found]
    assert epsilons == sorted(epsilons) and len(set(epsilons)) == len(epsilons)


def test_gaussian_limit_is_exact_for_the_model() -> None:
    mu = 1.5
    limits = [gaussian.mu_lower_bound(*ideal_canaries(mu, 500, seed)) for seed in range(300)]
    # Two-sided at .05: 2.5 % lie above; more than 18 of 300 come once in several thousand tests.
    assert sum(limit > mu for limit in limits) <= 18
    assert np.mean(limits) == pytest.approx(mu - 1.96 * 0.1, abs=0.05)


def test_rates_without_a_false_alarm_still_have_an_upper_limit() -> None:
    assert clopper_pearson.at_most(0, 500, 0.05) == pytest.approx(1 - 0.05 ** (1 / 500), rel=1e-9)
    assert clopper_pearson.at_least(500, 500, 0.05) == pytest.approx(0.05 ** (1 / 500), rel=1e-9)
    assert clopper_pearson.epsilon_of_rates(0, 0, 0, 10, 1e-5, 0.05) == 0.0


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 6.0])
def test_cosine_estimate_finds_the_epsilon_of_two_gaussians(epsilon: float) -> None:
    d = 40_000
    mu = mu_of(epsilon, DELTA)
    p, q = (mu / math.sqrt(d), 1 / math.sqrt(d)), (0.0, 1 / math.sqrt(d))
    assert cosine.between(p, q, DELTA) == pytest.approx(epsilon, rel=0.01)
    cosines = np.random.default_rng(0).normal(*p, size=20_000)
    assert cosine.epsilon_estimate(cosines, d, DELTA) == pytest.approx(epsilon, rel=0.1, abs=0.1)


def test_cosine_estimate_needs_canaries() -> None:
    with pytest.raises(ValueError, match="at least two"):
        cosine.epsilon_estimate(np.array([0.1]), 100, DELTA)


def test_cosine_estimate_stays_a_number_where_nothing_is_hidden() -> None:
    assert cosine.between((1.0, 1e-6), (0.0, 1e-3), DELTA) == 200.0


@pytest.mark.parametrize("mu", [20.0, 630.0, 633.0, 1e4, 1e9])
def test_scores_far_apart_have_a_large_gaussian_limit(mu: float) -> None:
    scores, coins = ideal_canaries(mu, 1000, 0)
    assert 0.9 * min(mu, 1e4 / math.sqrt(250)) <= gaussian.mu_lower_bound(scores, coins) <= mu
    assert gaussian.lower_bound(scores, coins, DELTA) > 100


def test_limit_from_canary_clients_is_exact_and_cares_for_their_spread() -> None:
    random, mu, d = np.random.default_rng(3), 1.6, 50_000
    cosines = random.normal(mu, size=(2000, 30)) / math.sqrt(d)
    limits = [cosine.mu_lower_bound(each, d) for each in cosines]
    # At most 5 % lie above; 130 of 2,000 come once in a thousand tests.
    assert sum(limit > mu for limit in limits) <= 130
    assert np.mean(limits) > mu - 0.4
    wide = mu / math.sqrt(d) + 3 * (cosines[0] - mu / math.sqrt(d))
    assert cosine.mu_lower_bound(wide, d) < limits[0]
