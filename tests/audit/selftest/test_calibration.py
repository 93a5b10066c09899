"""The self-test passes for the real bounds and fails for faulty ones."""

from __future__ import annotations

import math

import pytest

from calyx.audit.bounds import gaussian, steinke
from calyx.audit.bounds.guesses import Coins, Guesses, Scores, check
from calyx.audit.selftest import calibration


def test_it_passes_for_the_bounds_as_they_are() -> None:
    seen: list[tuple[str, float]] = []
    found = calibration.run(
        null_runs=400, coverage_runs=40, progress=lambda what, share: seen.append((what, share))
    )
    assert found.passed, found.as_dict()
    assert set(found.null_positive_rate) == {"steinke", "fdp", "clopper_pearson", "gaussian"}
    assert found.delta_mutant_caught
    assert {what for what, _ in seen} == {"null runs", "coverage", "sampled batches"}
    assert 0 < found.largest_null_positive_rate <= sum(found.null_positive_rate.values())
    assert set(found.coverage) == {*calibration.BOUNDS, calibration.LARGEST, calibration.SAMPLED}
    assert all(0 < share <= 1 for _, share in seen)


def test_a_bound_that_takes_the_best_of_many_counts_uncorrected_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def best_of_many(scores: Scores, coins: Coins, delta: float) -> float:
        check(scores, coins)
        ordered = coins[(-scores).argsort()]
        made = [Guesses(len(scores), n, int(ordered[:n].sum())) for n in range(10, 500, 10)]
        return max(steinke.epsilon_of_guesses(guess, delta) for guess in made)

    monkeypatch.setitem(calibration.BOUNDS, "steinke", best_of_many)
    found = calibration.run(null_runs=100, coverage_runs=1)
    assert found.null_positive_rate["steinke"] > 0.2
    assert not found.passed


def test_a_bound_that_claims_too_much_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(scores: Scores, coins: Coins, delta: float) -> float:
        bound = gaussian.lower_bound(scores, coins, delta)
        return 1.5 * bound if bound else 0.0

    monkeypatch.setitem(calibration.BOUNDS, "gaussian", too_large)
    found = calibration.run(null_runs=100, coverage_runs=20)
    assert found.coverage["gaussian"][8.0] < 0.5
    assert not found.passed


def test_a_bound_without_delta_misses_the_published_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = steinke.epsilon_of_guesses
    monkeypatch.setattr(
        steinke, "epsilon_of_guesses", lambda made, _, level=0.05: real(made, 0.0, level)
    )
    found = calibration.run(null_runs=100, coverage_runs=1)
    assert not any(pin.holds for pin in found.pins)
    assert math.isclose(found.pins[0].found, 0.702, abs_tol=1e-3)
    assert not found.passed
