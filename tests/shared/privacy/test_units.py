"""What an event says for a record, for a client, and for a client whose data are replaced.

Costs are computed here a second time, from the definition of the mechanism or a closed form.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import logsumexp
from scipy.stats import norm, skellam

from calyx.shared.config import Config
from calyx.shared.config.load import build, from_settings
from calyx.shared.errors import PrivacyError
from calyx.shared.privacy.accounting import spent, within
from calyx.shared.privacy.event import PrivacyEvent
from calyx.shared.privacy.plan import PrivacyPlan, SumShape, make_plan
from calyx.shared.privacy.skellam import ORDERS
from calyx.shared.privacy.skellam_mechanism import SkellamMechanism

DELTA = 1e-4
CLIENT = ("privacy.unit=client", "privacy.epsilon=8")
IN_CLEAR = ("secure_aggregation.scheme=none",)
WAYS = {
    "distributed": (*CLIENT, "privacy.noise=distributed", "secure_aggregation.scheme=bfv"),
    "central": (*CLIENT, "privacy.noise=central", *IN_CLEAR),
    "local": (*CLIENT, "privacy.noise=local", *IN_CLEAR),
}


def config(*lines: str) -> Config:
    return build(from_settings(lines))


def plan(way: str) -> PrivacyPlan:
    return make_plan(config(*WAYS[way]), 144, SumShape(1000, 32767))


def exact_gaussian(mu: float, delta: float) -> float:
    """Balle and Wang 2018."""

    def excess(epsilon: float) -> float:
        tail = math.exp(epsilon + norm.logcdf(-epsilon / mu - mu / 2))
        return float(norm.cdf(mu / 2 - epsilon / mu) - tail) - delta

    return float(brentq(excess, 0.0, mu * mu / 2 + 20 * mu))


def skellam_epsilon(mechanism: SkellamMechanism, distance: float, releases: int) -> float:
    """The bound for dithered rounding from its formula, for vectors `distance` grid steps apart."""
    mu = (mechanism.noise_multiplier * mechanism.scaled_norm) ** 2
    found = []
    for a in range(2, 257):
        slope = a / (2 * mu) + min((2 * a + 5) / (4 * mu**2), 3 / (2 * mu))
        rdp = releases * slope * (1 + (a - 1) * slope) * (distance**2 + mechanism.dimension / 4)
        found.append(rdp + math.log(1 - 1 / a) - math.log(DELTA * a) / (a - 1))
    return min(found)


class TestCosts:
    def test_central_noise_counts_twice_for_a_record(self) -> None:
        made = plan("central")
        for whom, apart in (("client", 1), ("record", 2), ("replaced client", 2)):
            exact = exact_gaussian(apart * math.sqrt(made.rounds) / made.noise_multiplier, DELTA)
            found = made.spent(made.rounds, whom)  # type: ignore[arg-type]
            assert found.epsilon == pytest.approx(exact, rel=2e-3)
            assert found.epsilon >= exact * (1 - 1e-9)

    def test_distributed_noise_counts_twice_for_a_record(self) -> None:
        made = plan("distributed")
        mechanism = made.mechanism
        assert mechanism is not None
        for whom, apart in (("client", 1), ("record", 2), ("replaced client", 2)):
            again = skellam_epsilon(mechanism, apart * mechanism.scaled_norm, made.rounds)
            found = made.spent(made.rounds, whom)  # type: ignore[arg-type]
            # What cutting the noise adds to delta is in the one and not in the other.
            assert again <= found.epsilon <= again * 1.001

    def test_local_noise_is_made_for_replaced_data_and_counts_once(self) -> None:
        made = plan("local")
        exact = exact_gaussian(2 * math.sqrt(made.rounds) / made.noise_multiplier, DELTA)
        for whom in ("client", "record", "replaced client"):
            found = made.spent(made.rounds, whom)  # type: ignore[arg-type]
            assert found.epsilon == pytest.approx(exact, rel=2e-3)
            assert found.epsilon <= 8

    def test_a_client_level_promise_is_far_from_one_for_records(self) -> None:
        """The figure that must not be printed for each record."""
        for way in ("distributed", "central"):
            made = plan(way)
            assert made.spent(made.rounds).epsilon <= 8
            assert made.spent(made.rounds, "record").epsilon > 17

    def test_mixed_ledgers_add_up(self) -> None:
        """Record-level rounds at sensitivity C, client-level ones at 2C."""
        by_client = plan("central")
        by_record = make_plan(config("privacy.sampling=full"), 144)
        events = [by_client.events(by_client.rounds), by_record.events(by_record.rounds)]
        mu = math.sqrt(
            by_client.rounds * (2 / by_client.noise_multiplier) ** 2
            + by_record.rounds * by_record.steps_per_round / by_record.noise_multiplier**2
        )
        found = spent(events, DELTA, "record").epsilon
        assert found == pytest.approx(exact_gaussian(mu, DELTA), rel=2e-3)
        assert spent(events, DELTA, "client").epsilon == math.inf

    def test_what_is_replaced_is_not_amplified_by_sampling(self) -> None:
        """Two replaced updates share nothing that a coin could hide; a zero and an update do."""
        sampled = PrivacyEvent("gaussian", "client", 4.0, "poisson", 0.1, 10, None, 2)
        whole = replace(sampled, sampling="full", sampling_rate=1.0)
        assert spent([sampled], DELTA, "client").epsilon < spent([whole], DELTA, "client").epsilon
        assert spent([sampled], DELTA, "record") == spent([whole], DELTA, "record")


@pytest.mark.parametrize("scaled", [0.4, 1.0, 2.3])
@pytest.mark.parametrize("deviation", [3.0, 9.0])
def test_the_bound_at_twice_the_norm_holds_for_the_real_distributions(
    scaled: float, deviation: float
) -> None:
    """Rényi divergence of dithered Skellam, summed up, for every x against every -x on a grid."""
    mechanism = SkellamMechanism(
        "dithered", 1, 1.0, deviation / scaled, scaled, 1, 1, 1, math.ceil(scaled)
    )
    bound = mechanism.rdp(shift=2)
    reach = math.ceil(14 * deviation + 2 * scaled + 2)
    places = np.arange(-reach, reach + 1)

    def released(x: float) -> np.ndarray:
        """Probabilities of floor(x + U) + noise."""
        below, up = math.floor(x), x - math.floor(x)
        each = [skellam.pmf(places - below - k, deviation**2 / 2, deviation**2 / 2) for k in (0, 1)]
        return np.asarray((1 - up) * each[0] + up * each[1])

    for x, other in product((scaled, 0.7 * scaled), (-scaled, -0.9 * scaled)):
        p, q = released(x), released(other)
        for a in (2, 3, 5, 9):
            divergence = float(logsumexp(a * np.log(p) - (a - 1) * np.log(q))) / (a - 1)
            assert divergence <= bound[list(ORDERS).index(a)] * (1 + 1e-6)
    # It is no bound that anything would pass: one norm apart it costs about a quarter.
    ordinary = mechanism.rdp()[0]
    assert float(np.log(np.sum(released(scaled) ** 2 / released(-scaled)))) > ordinary


NOISE = st.sampled_from([0.8, 2.0, 5.0])
CLIENT_LEVEL = st.builds(
    PrivacyEvent,
    st.just("gaussian"),
    st.just("client"),
    NOISE,
    st.just("full"),
    st.just(1.0),
    st.integers(1, 4),
    st.none(),
    st.sampled_from([None, 1, 2]),
) | st.builds(
    PrivacyEvent,
    st.just("gaussian"),
    st.just("client"),
    NOISE,
    st.just("poisson"),
    st.sampled_from([0.1, 0.5]),
    st.integers(1, 4),
    st.none(),
    st.sampled_from([None, 1, 2]),
)


@settings(max_examples=40, deadline=None)
@given(events=st.lists(CLIENT_LEVEL, min_size=1, max_size=4))
def test_a_record_never_counts_for_less_than_its_client(events: list[PrivacyEvent]) -> None:
    client, record = (spent(events, DELTA, whom) for whom in ("client", "record"))  # type: ignore[arg-type]
    # Both are upper bounds on a grid of losses; that errs upwards by less than this.
    assert record.epsilon >= client.epsilon * (1 - 1e-3)
    assert record.rdp >= client.rdp
    assert spent(events, DELTA, "replaced client") == record
    assert within(events, record.epsilon, DELTA, "record")
    assert not within(events, record.epsilon * 0.999, DELTA, "record")


class TestOlderLedgers:
    """Before, a client-level event did not say what it means for a record."""

    GAUSSIAN = (
        '{"count":1,"mechanism":"gaussian","noise_multiplier":4.0,'
        '"sampling":"full","sampling_rate":1.0,"unit":"client"}'
    )

    def test_their_events_are_read_and_count_at_twice_the_norm(self) -> None:
        old = PrivacyEvent.from_dict(json.loads(self.GAUSSIAN))
        assert old.replacement_factor is None
        told = replace(old, replacement_factor=2)
        assert spent([old], DELTA, "record") == spent([told], DELTA, "record")
        assert spent([old], DELTA, "client") == spent([told], DELTA, "client")

    def test_their_events_are_written_as_they_were(self) -> None:
        old = PrivacyEvent.from_dict(json.loads(self.GAUSSIAN))
        assert json.dumps(old.as_dict(), sort_keys=True, separators=(",", ":")) == self.GAUSSIAN

    def test_new_events_say_it_and_survive_their_json_form(self) -> None:
        for way, factor in (("central", 2), ("distributed", 2), ("local", 1)):
            event = plan(way).round_event
            assert event.replacement_factor == factor
            assert PrivacyEvent.from_dict(json.loads(json.dumps(event.as_dict()))) == event

    def test_no_sum_claims_to_be_made_for_replaced_data(self) -> None:
        event = plan("distributed").round_event
        with pytest.raises(PrivacyError, match="not a valid privacy event"):
            replace(event, replacement_factor=1)
