"""Epsilon from events: published figures, closed forms, and what must never be underestimated."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from calyx.shared.errors import PrivacyError
from calyx.shared.privacy.accounting import Spent, spent, within
from calyx.shared.privacy.event import PrivacyEvent

FLOWER_EXAMPLE_ROUND = PrivacyEvent("gaussian", "record", 1.0, "poisson", 32 / 4000, 125)


def poisson(noise: float, rate: float, count: int) -> PrivacyEvent:
    return PrivacyEvent("gaussian", "record", noise, "poisson", rate, count)


def full(noise: float, count: int, unit: str = "record") -> PrivacyEvent:
    return PrivacyEvent("gaussian", unit, noise, "full", 1.0, count)  # type: ignore[arg-type]


def smallest_epsilon(delta_of: Callable[[float], float], delta: float, at_most: float) -> float:
    return float(brentq(lambda e: delta_of(e) - delta, 0.0, at_most)) if delta_of(0) > delta else 0


def gaussian_epsilon(events: Sequence[PrivacyEvent], delta: float) -> float:
    """Exact cost of unamplified Gaussians (Balle and Wang 2018): they compose to one Gaussian."""
    mu = math.sqrt(sum(event.count / event.noise_multiplier**2 for event in events))

    def delta_of(epsilon: float) -> float:
        tail = norm.logcdf(-epsilon / mu - mu / 2)
        return float(norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon + tail))

    return smallest_epsilon(delta_of, delta, mu * mu / 2 + 20 * mu)


def sampled_gaussian_epsilon(noise: float, rate: float, delta: float) -> float:
    """Exact cost of one step whose records enter by coin, in the direction that costs more."""

    def delta_of(epsilon: float) -> float:
        # The mixture outweighs e^epsilon times the null exactly above this threshold.
        threshold = noise**2 * math.log((math.exp(epsilon) - 1 + rate) / rate) + 0.5
        null, shifted = norm.sf(threshold / noise), norm.sf((threshold - 1) / noise)
        return float((1 - rate) * null + rate * shifted - math.exp(epsilon) * null)

    return smallest_epsilon(delta_of, delta, 50.0)


class TestPublishedFigures:
    @pytest.mark.parametrize(
        ("event", "pld", "rdp"),
        [
            (poisson(1.0, 0.02, 1000), 3.899, 4.324),
            # The same training with fixed batches: each record is used once an epoch, so 20
            # times, and nothing is amplified.
            (full(1.0, 20), 28.37, 30.13),
        ],
    )
    def test_pins(self, event: PrivacyEvent, pld: float, rdp: float) -> None:
        cost = spent([event], 1e-5)
        assert cost.pld == pytest.approx(pld, rel=1e-3)
        assert cost.rdp == pytest.approx(rdp, rel=1e-3)
        assert cost.epsilon == min(cost.pld, cost.rdp)

    def test_a_fresh_accountant_each_round_reports_a_ninth_of_the_truth(self) -> None:
        """Flower's Opacus example: 4,000 records, batch 32, 125 steps a round, 100 rounds.

        It builds a new engine for each message, so each of its 100 reports says 0.62.
        """
        each_report = max(spent([FLOWER_EXAMPLE_ROUND], 1e-5).epsilon for _ in range(100))
        truth = spent([FLOWER_EXAMPLE_ROUND] * 100, 1e-5).epsilon
        assert each_report == pytest.approx(0.62, abs=0.01)
        assert truth == pytest.approx(5.43, abs=0.02)

    def test_the_accountant_of_that_example_agrees_on_both_figures(self) -> None:
        """Opacus' PRV accountant, its default, adds its error bound of 0.01 to epsilon."""
        from opacus.accountants import PRVAccountant

        for rounds, printed in ((1, "0.62"), (100, "5.43")):
            theirs = PRVAccountant()
            theirs.history = [(1.0, 32 / 4000, 125 * rounds)]
            epsilon = theirs.get_epsilon(1e-5)
            assert f"{epsilon:.2f}" == printed
            ours = spent([FLOWER_EXAMPLE_ROUND] * rounds, 1e-5)
            assert ours.pld == pytest.approx(epsilon - 0.01, abs=0.003)
            assert ours.rdp > epsilon


class TestNeverTooLittle:
    @pytest.mark.parametrize("delta", [1e-2, 1e-5, 1e-9, 1e-12, 1e-14])
    @pytest.mark.parametrize(
        "events",
        [
            [full(1.0, 1)],
            [full(5.0, 40)],
            [full(50.0, 1000)],
            [full(1.0, 100)],
            [full(1.0, 2), full(3.0, 10), full(20.0, 100)],
        ],
        ids=["one", "40", "1000", "large", "mixed"],
    )
    def test_both_accountants_are_upper_bounds_of_the_exact_gaussian(
        self, events: list[PrivacyEvent], delta: float
    ) -> None:
        exact = gaussian_epsilon(events, delta)
        cost = spent(events, delta)
        assert exact * (1 - 1e-9) <= cost.epsilon <= exact * 1.1
        if delta == 1e-5:
            assert cost.pld == pytest.approx(exact, rel=2e-3)

    @pytest.mark.parametrize(("noise", "rate"), [(1.0, 0.1), (0.7, 0.02), (2.0, 0.5)])
    def test_the_amplified_step_is_an_upper_bound_of_its_closed_form(
        self, noise: float, rate: float
    ) -> None:
        exact = sampled_gaussian_epsilon(noise, rate, 1e-5)
        cost = spent([poisson(noise, rate, 1)], 1e-5)
        assert exact <= cost.epsilon
        assert cost.pld == pytest.approx(exact, rel=5e-3)

    def test_the_coarse_grid_errs_upwards(self) -> None:
        events = [poisson(1.0, 0.02, 1000)]
        fine, coarse = spent(events, 1e-5), spent(events, 1e-5, coarse=True)
        assert fine.epsilon <= coarse.epsilon <= fine.epsilon * 1.01

    def test_sampling_every_record_is_no_amplification(self) -> None:
        assert spent([poisson(2.0, 1.0, 10)], 1e-5) == spent([full(2.0, 10)], 1e-5)

    def test_amplification_needs_the_coins(self) -> None:
        assert spent([poisson(2.0, 0.5, 10)], 1e-5).epsilon < spent([full(2.0, 10)], 1e-5).epsilon

    @settings(max_examples=20, deadline=None)
    @given(
        counts=st.lists(st.integers(1, 5), min_size=1, max_size=4),
        more=st.sampled_from([full(2.0, 1), full(8.0, 1), full(4.0, 1, "client")]),
    )
    def test_one_event_more_never_costs_less(self, counts: list[int], more: PrivacyEvent) -> None:
        events = [full(2.0 + i, count) for i, count in enumerate(counts)]
        before, after = spent(events, 1e-5), spent([*events, more], 1e-5)
        assert before.pld < after.pld
        assert before.rdp < after.rdp


class TestComposition:
    @settings(max_examples=30, deadline=None)
    @given(cuts=st.sets(st.integers(1, 59), max_size=8))
    def test_rounds_cost_exactly_what_one_long_round_costs(self, cuts: set[int]) -> None:
        edges = [0, *sorted(cuts), 60]
        rounds = [poisson(1.5, 0.1, b - a) for a, b in pairwise(edges)]
        assert spent(rounds, 1e-5) == spent([poisson(1.5, 0.1, 60)], 1e-5)

    @settings(max_examples=20, deadline=None)
    @given(
        events=st.permutations(
            [full(2.0, 3), full(3.0, 1), full(4.0, 2, "client"), full(2.0, 1), full(5.0, 7)]
        )
    )
    def test_the_order_of_events_does_not_matter(self, events: list[PrivacyEvent]) -> None:
        assert spent(events, 1e-5) == spent(sorted(events, key=repr), 1e-5)

    def test_what_was_done_no_time_costs_nothing(self) -> None:
        nothing = [full(2.0, 0), PrivacyEvent("none", "record", 0.0, "full", 1.0, 0)]
        assert spent(nothing, 1e-5) == spent([], 1e-5) == Spent(0.0, 0.0, 1e-5)

    def test_one_unprotected_access_costs_everything(self) -> None:
        events = [full(100.0, 1), PrivacyEvent("none", "record", 0.0, "full", 1.0, 1)]
        assert spent(events, 1e-5).epsilon == math.inf


class TestUnits:
    def test_what_protects_a_record_says_nothing_of_the_client(self) -> None:
        assert spent([full(1000.0, 1)], 1e-5, "client").epsilon == math.inf

    def test_a_record_pays_for_both_kinds_and_a_client_cannot(self) -> None:
        """A client-level event of sensitivity C is one of 2C for a record."""
        events = [full(2.0, 4), full(4.0, 4, "client")]
        both = spent(events, 1e-5, "record")
        assert both.epsilon == pytest.approx(gaussian_epsilon([full(2.0, 8)], 1e-5), rel=2e-3)
        assert spent(events, 1e-5, "client").epsilon == math.inf


class TestWithin:
    @pytest.mark.parametrize("event", [poisson(1.5, 0.1, 60), full(3.0, 9)])
    def test_the_limit_itself_is_within_and_anything_below_is_not(
        self, event: PrivacyEvent
    ) -> None:
        epsilon = spent([event], 1e-5).epsilon
        assert within([event], epsilon, 1e-5, "record")
        assert not within([event], epsilon * (1 - 1e-9), 1e-5, "record")

    def test_no_event_is_within_any_budget(self) -> None:
        assert within([], 1e-9, 1e-5, "record")

    def test_only_an_infinite_budget_holds_what_is_unprotected(self) -> None:
        unprotected = [PrivacyEvent("none", "client", 0.0, "full", 1.0, 1)]
        assert within(unprotected, math.inf, 1e-5, "client")
        assert not within(unprotected, 1e300, 1e-5, "client")
        assert not within(unprotected, -math.inf, 1e-5, "client")

    def test_record_level_events_are_within_no_client_level_budget(self) -> None:
        assert not within([full(1000.0, 1)], 1e6, 1e-5, "client")

    def test_a_limit_that_is_no_number_holds_nothing(self) -> None:
        assert not within([full(1000.0, 1)], math.nan, 1e-5, "record")


@pytest.mark.parametrize(
    "event",
    [
        poisson(0.1, 0.5, 10**9),
        poisson(1.0, 0.01, 10**9),
        full(0.001, 10**9),
        full(1e9, 10**15),
        full(1e6, 10**12),
        poisson(1e9, 1e-9, 1),
        poisson(0.1, 1e-12, 10**9),
    ],
    ids=repr,
)
def test_no_event_makes_the_accountant_run_out_of_time_or_memory(event: PrivacyEvent) -> None:
    """A received plan may hold any numbers, and the client has to account for them."""
    start = time.perf_counter()
    cost = spent([event], 1e-5)
    assert cost.epsilon >= 0
    assert within([event], cost.epsilon, 1e-5, "record")
    assert time.perf_counter() - start < 10


VALID = full(1.5, 3).as_dict()

INVALID = {
    "no mechanism": {"mechanism": "laplace"},
    "mechanism no text": {"mechanism": ["gaussian"]},
    "no unit": {"unit": "Client"},
    "unit no text": {"unit": None},
    "no sampling": {"sampling": "shuffled"},
    "sampling no text": {"sampling": ["full"]},
    "no noise": {"noise_multiplier": 0.0},
    "negative noise": {"noise_multiplier": -1.0},
    "infinite noise": {"noise_multiplier": math.inf},
    "noise that overflows": {"noise_multiplier": 1e300},
    "noise that underflows": {"noise_multiplier": 1e-300},
    "noise that is no number": {"noise_multiplier": math.nan},
    "noise as text": {"noise_multiplier": "1.0"},
    "noise as truth": {"noise_multiplier": True},
    "huge integer noise": {"noise_multiplier": 10**400},
    "rate of zero": {"sampling": "poisson", "sampling_rate": 0.0},
    "rate above one": {"sampling": "poisson", "sampling_rate": 1.1},
    "rate that is no number": {"sampling": "poisson", "sampling_rate": math.nan},
    "full at a rate": {"sampling_rate": 0.5},
    "negative count": {"count": -1},
    "half a count": {"count": 1.5},
    "count as float": {"count": 3.0},
    "count as truth": {"count": True},
    "count without end": {"count": 10**400},
    "noise where there is none": {"mechanism": "none"},
    "unknown field": {"epsilon": 0.1},
    "a record's event with a client's factor": {"replacement_factor": 2},
    "a factor for an access without noise": {
        "mechanism": "none",
        "unit": "client",
        "noise_multiplier": 0.0,
        "replacement_factor": 2,
    },
    "a factor below one": {"unit": "client", "replacement_factor": 0},
    "a factor of three": {"unit": "client", "replacement_factor": 3},
    "a factor as float": {"unit": "client", "replacement_factor": 1.0},
    "a factor as truth": {"unit": "client", "replacement_factor": True},
}


@pytest.mark.parametrize("case", INVALID)
def test_what_is_no_event_is_refused(case: str) -> None:
    with pytest.raises(PrivacyError):
        PrivacyEvent.from_dict(VALID | INVALID[case])


@pytest.mark.parametrize("field", VALID)
def test_a_missing_field_is_never_guessed(field: str) -> None:
    fields: dict[str, Any] = {key: value for key, value in VALID.items() if key != field}
    with pytest.raises(PrivacyError, match=field):
        PrivacyEvent.from_dict(fields)


@given(
    noise=st.floats(0.01, 1e4),
    rate=st.floats(1e-6, 1.0),
    count=st.integers(0, 10**6),
    unit=st.sampled_from(["record", "client"]),
)
def test_an_event_survives_its_json_form(noise: float, rate: float, count: int, unit: str) -> None:
    event = PrivacyEvent("gaussian", unit, noise, "poisson", rate, count)  # type: ignore[arg-type]
    assert PrivacyEvent.from_dict(json.loads(json.dumps(event.as_dict()))) == event
