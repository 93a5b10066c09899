"""The bound of a released sum: honest sums pass, poisoned ones do not.

False-alarm rate of the statistical tests: the product's own bound is tried with its probability of
1e-9, so they fail by chance never; the tails are tried where they are large, with fixed seeds.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calyx.server.aggregation.sum_bound import SumBound, longest
from calyx.shared.config import Config
from calyx.shared.encryption import SealingParameters
from calyx.shared.encryption.quantise import IntegerGrid, dithered_rounding
from calyx.shared.errors import UnfitSum
from calyx.shared.models import build_model
from calyx.shared.models.vector import dimension
from calyx.shared.privacy.plan import PrivacyPlan, make_plan
from calyx.shared.protocol.sealed.messages import sealing_parameters, sum_shape
from calyx.shared.record_spec import RecordSpec
from calyx.simulations.presets import preset_names, resolve

RECORDS = 144
SEALED = [name for name in preset_names() if name.startswith("digits")]
FORMS = {
    **{name: (name, ()) for name in SEALED},
    "client": ("digits-cnn", ("privacy.unit=client",)),
    "poisson": ("digits-cnn", ("privacy.sampling=poisson",)),
    "nominal": (
        "digits-attention",
        ("privacy.record_counts=nominal", "privacy.nominal_records=100"),
    ),
    "small groups": (
        "digits-attention",
        ("federation.clients=3", "secure_aggregation.min_contributors=3"),
    ),
}


class Form:
    """A run of this form and its honest clients."""

    def __init__(self, preset: str, changes: tuple[str, ...]) -> None:
        self.config: Config = resolve(preset, list(changes))
        shape = (1, 8, 8) if self.config.model.name == "cnn" else (8, 8)
        size = dimension(build_model(self.config.model, RecordSpec.floats(shape), 10, 0))
        self.plan: PrivacyPlan = make_plan(self.config, RECORDS, sum_shape(self.config, size))
        self.parameters: SealingParameters = sealing_parameters(self.config, self.plan, size)
        self.clients = self.config.cohort_size

    @property
    def bound(self) -> SumBound:
        return SumBound.of(
            self.config, self.plan, self.parameters, self.clients, float(self.clients)
        )

    def signal(self) -> float:
        """Longest clipped vector of an honest client."""
        each = 1 if self.plan.unit == "client" else RECORDS
        return each * self.plan.clip_norm

    def honest(
        self, direction: NDArray[np.float64], generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """The worst case: all clients send the longest vector in one direction."""
        mechanism = self.plan.mechanism
        assert mechanism is not None
        grid = IntegerGrid(mechanism.step, mechanism.clamp)
        scaled = grid.scaled(direction * self.signal())
        total = np.zeros(len(direction), dtype=np.int64)
        for _ in range(self.clients):
            total += dithered_rounding(scaled, generator) + mechanism.noise(generator)
        return total


@pytest.fixture(scope="module", params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    return Form(*FORMS[request.param])


def unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / float(np.linalg.norm(vector))


def test_longest_honest_sums_pass(form: Form) -> None:
    generator = np.random.default_rng(0)
    d = form.parameters.length
    one = np.zeros(d)
    one[3] = 1.0
    for direction in (unit(np.ones(d)), unit(generator.standard_normal(d)), one):
        form.bound.check(form.honest(direction, generator))


def test_bound_is_not_far_above_the_longest_honest_sums(form: Form) -> None:
    """A bound that lets everything pass is not a bound."""
    mechanism = form.plan.mechanism
    assert mechanism is not None
    noise = math.sqrt(form.clients * mechanism.share_variance * form.parameters.length)
    signal = form.clients * form.signal() / mechanism.step
    nominal = form.config.privacy.record_counts == "nominal"
    assert form.bound.length < (5 if nominal else 1.1) * math.hypot(noise, signal)


@pytest.mark.parametrize("name", sorted(FORMS.keys() - {"nominal"}))
def test_one_client_that_uses_all_of_its_fields_does_not_pass(name: str) -> None:
    """Where counts are nominal, an honest client may have enough records to fill its fields."""
    form = Form(*FORMS[name])
    generator = np.random.default_rng(1)
    d = form.parameters.length
    honest = form.honest(unit(generator.standard_normal(d)), generator)
    evil = generator.choice([-1, 1], d) * form.parameters.value_bound
    with pytest.raises(UnfitSum, match="grid steps long"):
        form.bound.check(honest + evil)


def test_value_out_of_range_does_not_pass() -> None:
    bound = Form(*FORMS["small groups"]).bound
    for value in (bound.largest + 1, -bound.largest - 1, np.iinfo(np.int64).min):
        values = np.zeros(9226, dtype=np.int64)
        values[5] = value
        with pytest.raises(UnfitSum, match="at most"):
            bound.check(values)


def test_fewer_records_give_a_smaller_bound() -> None:
    form = Form(*FORMS["small groups"])
    arguments = (form.config, form.plan, form.parameters, 3)
    lengths = [SumBound.of(*arguments, weight).length for weight in (0.5, 1.0, 3.0)]
    assert lengths == sorted(lengths) and lengths[0] < lengths[2]


def test_without_distributed_noise_the_configured_norm_bounds_an_update() -> None:
    changes = ("privacy.noise=none", "federation.max_update_norm=5", "federation.clients=3")
    form = Form("digits-attention", (*changes, "secure_aggregation.min_contributors=3"))
    grid = IntegerGrid(
        form.config.secure_aggregation.clamp / form.parameters.value_bound,
        form.parameters.value_bound,
    )
    generator = np.random.default_rng(2)
    direction = unit(np.ones(form.parameters.length))
    total = sum(
        (dithered_rounding(grid.scaled(5 * direction), generator) for _ in range(3)),
        np.zeros(form.parameters.length, dtype=np.int64),
    )
    form.bound.check(total)
    with pytest.raises(UnfitSum):
        form.bound.check(np.asarray(total * 1.1, dtype=np.int64))
    wide = replace(form.bound, length=math.inf)
    wide.check(total)


@settings(max_examples=60, deadline=None)
@given(
    d=st.integers(1, 400),
    clients=st.integers(1, 12),
    variance=st.sampled_from([0.0, 0.05, 1.0, 40.0, 1e4]),
    length=st.sampled_from([0.0, 1.0, 30.0, 3000.0]),
    seed=st.integers(0, 2**32),
)
def test_no_draw_of_noise_and_rounding_is_beyond_the_bound(
    d: int, clients: int, variance: float, length: float, seed: int
) -> None:
    """Few and many coordinates, hardly any and much noise, at the product's own probability."""
    generator = np.random.default_rng(seed)
    direction = unit(generator.standard_normal(d) ** 5 + 1e-9)
    total = np.zeros(d)
    for _ in range(clients):
        total += dithered_rounding(direction * length, generator)
        half = variance / 2
        total += generator.poisson(half, d) - generator.poisson(half, d)
    most = longest(clients * length, clients * (variance + 0.25), d, 1e-9 / 150)
    assert np.linalg.norm(total) <= most


@pytest.mark.parametrize(("d", "variance"), [(1, 0.05), (5, 1.0), (400, 0.5), (400, 100.0)])
def test_tails_are_no_larger_than_stated(d: int, variance: float) -> None:
    """At p = 0.02 each, of 20,000 draws at most 3p are beyond it."""
    p, draws, signal = 0.02, 20_000, 3.0 * math.sqrt(d * variance)
    generator = np.random.default_rng(3)
    half = variance / 2
    noise = generator.poisson(half, (draws, d)) - generator.poisson(half, (draws, d))
    direction = unit(np.ones(d))
    lengths = np.linalg.norm(signal * direction + noise, axis=1)
    assert np.mean(lengths > longest(signal, variance, d, p)) <= 3 * p
