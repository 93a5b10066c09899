"""Skellam noise: its distribution, and what it costs.

Each statistical test states how often it would fail if everything were right. Seeds are fixed, so
they either always pass or always fail.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ive, logsumexp

from calyx.shared.errors import PrivacyError
from calyx.shared.privacy.skellam import (
    ORDERS,
    amplified,
    conditional_norm_bound,
    gaussian_epsilon,
    rdp_dithered,
    rdp_integer_vectors,
    rdp_to_epsilon,
    skellam_noise,
    tail_bound,
)

FALSE_ALARM = 1e-6


# --- samples -------------------------------------------------------------------------


@pytest.mark.parametrize("variance", [0.5, 40.0, 6e4, 1e8, 2e10])
def test_samples_have_mean_zero_and_the_variance(variance):
    # Normal and chi-square limits of 200,000 draws: false alarm 1e-6 for each.
    n = 200_000
    draws = skellam_noise(np.random.default_rng(11), n, variance).astype(np.float64)
    z = stats.norm.isf(FALSE_ALARM / 2)
    assert abs(draws.mean()) < z * math.sqrt(variance / n)
    # The fourth central moment is 3 v^2 + v, so the sample variance has variance (2v^2 + v)/n.
    assert abs(draws.var() - variance) < z * math.sqrt((2 * variance**2 + variance) / n)


@pytest.mark.parametrize("variance", [0.5, 40.0])
def test_samples_follow_the_exact_distribution(variance):
    # Chi-square goodness of fit: false alarm 1e-6.
    draws = skellam_noise(np.random.default_rng(12), 200_000, variance)
    assert chi_square_p(draws, stats.skellam(variance / 2, variance / 2)) > FALSE_ALARM


@pytest.mark.parametrize("variance", [2e6, 1e8, 2e10])
def test_wide_samples_follow_the_normal_limit(variance):
    # Kolmogorov-Smirnov against the normal: false alarm 1e-6. The limit itself is off by less
    # than 1/(20 v) here, far below what 200,000 draws can show.
    draws = skellam_noise(np.random.default_rng(13), 200_000, variance)
    dithered = draws + np.random.default_rng(14).random(len(draws)) - 0.5
    assert stats.kstest(dithered / math.sqrt(variance), "norm").pvalue > FALSE_ALARM


@pytest.mark.parametrize("shares", [3, 25])
def test_shares_of_many_clients_add_up_to_one_skellam_variable(shares):
    # Closure under summation, against the exact distribution: false alarm 1e-6.
    variance = 30.0
    generators = [np.random.default_rng(100 + client) for client in range(shares)]
    total = sum(skellam_noise(g, 100_000, variance / shares) for g in generators)
    assert chi_square_p(total, stats.skellam(variance / 2, variance / 2)) > FALSE_ALARM


def test_neighbouring_draws_are_uncorrelated():
    # The correlation of 200,000 independent pairs is normal with deviation 1/sqrt(n): 1e-6.
    draws = skellam_noise(np.random.default_rng(15), 200_001, 50.0)
    correlation = np.corrcoef(draws[:-1], draws[1:])[0, 1]
    assert abs(correlation) < stats.norm.isf(FALSE_ALARM / 2) / math.sqrt(200_000)


def chi_square_p(draws, distribution):
    """p value of the counts of each value, the tails in one bin each."""
    low, high = int(distribution.ppf(1e-3)), int(distribution.isf(1e-3))
    edges = np.arange(low, high + 1)
    inner = distribution.pmf(edges)
    expected = len(draws) * np.array([distribution.cdf(low - 1), *inner, distribution.sf(high)])
    counts = np.array(
        [(draws < low).sum(), *[(draws == e).sum() for e in edges], (draws > high).sum()]
    )
    assert expected.min() > 10
    return stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue


def test_no_variance_is_no_noise():
    assert not skellam_noise(np.random.default_rng(0), (3, 4), 0.0).any()


@pytest.mark.parametrize("variance", [-1.0, math.nan, math.inf, 3e10])
def test_an_impossible_variance_is_refused(variance):
    with pytest.raises(PrivacyError, match="Skellam noise of variance"):
        skellam_noise(np.random.default_rng(0), 3, variance)


@pytest.mark.parametrize("variance", [0.3, 5.0, 400.0, 1e4])
@pytest.mark.parametrize("probability", [1e-3, 1e-9, 1e-25])
def test_the_tail_bound_holds_and_is_not_much_too_wide(variance, probability):
    z = tail_bound(variance, probability)
    distribution = stats.skellam(variance / 2, variance / 2)
    assert 2 * distribution.sf(z) <= probability
    if variance >= 5 and probability > 1e-20:
        assert 2 * distribution.sf(0.75 * z) > probability


# --- what it costs -------------------------------------------------------------------


def gaussian_rdp(noise_multiplier):
    return ORDERS / (2 * noise_multiplier**2)


def test_pin_gaussian_by_the_same_formula():
    epsilon = gaussian_epsilon(3.29, 1e-4, releases=60, sampling_rate=0.3)
    assert epsilon == pytest.approx(3.003, abs=5e-4)


def test_pin_skellam_with_the_worst_case_over_the_dither():
    scaled, d = 9600.0, 9258
    delta2 = scaled + math.sqrt(d)
    rdp = rdp_integer_vectors((3.29 * scaled) ** 2, math.sqrt(d) * delta2, delta2)
    epsilon = rdp_to_epsilon(60 * amplified(rdp, 0.3), 1e-4)
    assert epsilon == pytest.approx(3.042, abs=5e-4)


def test_amplification_agrees_with_dp_accounting_for_the_gaussian():
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(orders=list(range(2, 65)))
    accountant.compose(PoissonSampledDpEvent(0.3, GaussianDpEvent(3.29)))
    ours = amplified(gaussian_rdp(3.29), 0.3)[:63]
    np.testing.assert_allclose(ours, accountant._rdp, rtol=1e-8)


def log_pmf(values, variance):
    """Exact: the probability of n is e^-v I_|n|(v)."""
    return np.log(ive(np.abs(values), variance))


def mixed(log_p, log_q, rate):
    """Logarithms of the probabilities of (1 - rate) P + rate Q."""
    if rate in (0.0, 1.0):
        return log_q if rate else log_p
    return np.logaddexp(log_p + math.log1p(-rate), log_q + math.log(rate))


def exact_divergence(log_p, log_q, order):
    return logsumexp(order * log_p + (1 - order) * log_q) / (order - 1)


@pytest.mark.parametrize("variance", [4.0, 60.0])
@pytest.mark.parametrize("shift", [1, 2, 5])
@pytest.mark.parametrize("rate", [1.0, 0.3, 0.02])
def test_bounds_hold_in_both_directions_against_exact_divergences(variance, shift, rate):
    # One dimension, exact probabilities: P without the record, Q with it, M the sampled mixture.
    support = np.arange(-tail_bound(variance, 1e-60), tail_bound(variance, 1e-60) + shift + 1)
    p, q = log_pmf(support, variance), log_pmf(support - shift, variance)
    mixture = mixed(p, q, rate)
    bound = amplified(rdp_integer_vectors(variance, shift, shift), rate)
    for order in (2, 3, 5, 8):
        assert exact_divergence(mixture, p, order) <= bound[order - 2]
        assert exact_divergence(p, mixture, order) <= bound[order - 2]


@pytest.mark.parametrize("variance", [100.0, 1000.0])
@pytest.mark.parametrize("moved", [0.2, 1.0, 2.5, 7.3])
@pytest.mark.parametrize("start", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("rate", [1.0, 0.2])
def test_the_dithered_bound_holds_against_exact_divergences(variance, moved, start, rate):
    # The mixture over the secret dither, exactly: round(y) is floor(y) or one more.
    reach = tail_bound(variance, 1e-60) + 20
    support = np.arange(-reach, reach + 1)

    def rounded(y):
        low = math.floor(y)
        down, up = (log_pmf(support - w, variance) for w in (low, low + 1))
        return mixed(down, up, y - low)

    p, q = rounded(start), rounded(start + moved)
    mixture = mixed(p, q, rate)
    bound = amplified(rdp_dithered(variance, moved, 1), rate)
    for order in (2, 4, 8):
        assert exact_divergence(mixture, p, order) <= bound[order - 2]
        assert exact_divergence(p, mixture, order) <= bound[order - 2]


@settings(max_examples=60, deadline=None)
@given(
    moves=st.lists(st.integers(-600, 600), min_size=1, max_size=20),
    variance=st.floats(30, 1e5),
    order=st.integers(2, 40),
)
def test_the_dithered_bound_covers_the_exact_mean_over_dithers(moves, variance, order):
    # sum_j log E exp((a-1) A k_j^2), without Hoeffding: the step of the proof with inequalities.
    v = np.array(moves) / 100
    low, share = np.floor(v), v - np.floor(v)
    slope = order / (2 * variance) + (2 * order + 5) / (4 * variance**2)
    theta = (order - 1) * slope
    logs = np.logaddexp(
        np.log1p(-share) + theta * low**2,
        np.log(np.maximum(share, 1e-300)) + theta * (low + 1) ** 2,
    )
    exact = logs.sum() / (order - 1)
    norm = float(np.linalg.norm(v))
    assert exact <= rdp_dithered(variance, norm, len(v))[order - 2] * (1 + 1e-12)


@pytest.mark.parametrize("c", [0.5, 30.0, 1e4])
@pytest.mark.parametrize("d", [1, 1000, 10**6])
def test_the_conditional_bound_lies_between_norm_and_worst_case(c, d):
    bound = conditional_norm_bound(c, d)
    assert math.sqrt(c * c + d / 4) <= bound <= c + math.sqrt(d)


def test_conditional_rounding_succeeds_as_often_as_promised():
    from calyx.shared.encryption.quantise import dithered_rounding

    # Each draw succeeds with probability at least 1 - e^(-1/2) = 0.39: of 500, at least 130
    # (false alarm below 1e-9).
    generator = np.random.default_rng(3)
    x = generator.standard_normal(2000)
    x *= 90 / np.linalg.norm(x)
    norms = [np.linalg.norm(dithered_rounding(x, generator)) for _ in range(500)]
    assert sum(n <= conditional_norm_bound(90, 2000) for n in norms) > 130


def test_full_batches_are_not_amplified():
    rdp = gaussian_rdp(2.0)
    np.testing.assert_array_equal(amplified(rdp, 1.0), rdp)
    np.testing.assert_allclose(amplified(rdp, 1 - 1e-12), rdp, rtol=1e-6)
