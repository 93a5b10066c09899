"""The least epsilon of noise, rate and steps: close below the accountant's, and never above."""

from __future__ import annotations

import math

import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant

from calyx.audit.bounds.sigma_alone import Steps, least_epsilon


def by_accountant(steps: list[Steps], delta: float) -> float:
    accountant = PLDAccountant(value_discretization_interval=1e-4)
    for s in steps:
        event = GaussianDpEvent(s.noise)
        accountant.compose(
            event if s.rate == 1 else PoissonSampledDpEvent(s.rate, event), count=s.count
        )
    return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize(
    "steps",
    [
        [Steps(4.0, 1.0, 40)],
        [Steps(1.0, 0.02, 1000)],
        [Steps(3.0, 0.3, 60)],
        [Steps(0.7, 0.16, 24)],
        [Steps(2.0, 0.05, 10), Steps(20.0, 1.0, 4)],
    ],
    ids=lambda steps: str(steps[0]),
)
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-7])
def test_it_is_below_the_accountants_figure_by_little(steps: list[Steps], delta: float) -> None:
    least, told = least_epsilon(steps, delta), by_accountant(steps, delta)
    assert least <= told
    assert least > 0.97 * told - 0.02


def test_the_pin_of_a_thousand_sampled_steps() -> None:
    assert least_epsilon([Steps(1.0, 0.02, 1000)], 1e-5) == pytest.approx(3.899, abs=0.03)


def test_more_noise_leaves_less() -> None:
    found = [least_epsilon([Steps(noise, 0.1, 100)], 1e-5) for noise in (0.8, 1.0, 2.0, 50.0)]
    assert found == sorted(found, reverse=True)
    assert math.isfinite(found[0])
    assert least_epsilon([], 1e-5) == 0.0
