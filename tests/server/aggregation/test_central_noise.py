"""Central noise: no update of one client moves the released mean by more than its clip norm.

The noise is the same in both worlds here, so what differs between two steps is what one client did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from flwr.app import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calyx.server.aggregation.collection import CentralCollection
from calyx.server.aggregation.strategy import Strategy
from calyx.server.roster import Member
from calyx.shared.config import Config
from calyx.shared.config.load import build, from_settings
from calyx.shared.errors import ProtocolError
from calyx.shared.models.vector import to_vector
from calyx.shared.privacy.noise import SeededNoise
from calyx.shared.privacy.plan import make_plan
from calyx.shared.protocol.arrays import Weights

Reply = Callable[..., Message]
CLIENTS = 4
CLIP = 0.5
NAMES = ["w", "b", "scale"]
EXTREMES = [0.0, 1e-40, -0.1, 1.0, 999.0, 1001.0, 1e30, -3.4e38, np.inf, -np.inf, np.nan]


def config(*lines: str) -> Config:
    return build(
        from_settings(
            [
                "privacy.unit=client",
                "privacy.noise=central",
                f"privacy.clip_norm={CLIP}",
                f"federation.clients={CLIENTS}",
                "federation.max_update_norm=10",
                "training.rounds=2",
                *lines,
            ]
        )
    )


CONFIG = config()
PLAN = make_plan(CONFIG, 100)
OTHERS = [0.3, -7.0]


def collection(reference: Weights, key: bytes = b"k" * 32) -> CentralCollection:
    strategy = Strategy(CONFIG.federation)
    return CentralCollection(1, reference, CONFIG, strategy, PLAN, NAMES, SeededNoise(key))


def step(
    reference: Weights, reply: Reply, updates: Mapping[str, Mapping[str, np.ndarray]]
) -> np.ndarray:
    """What a round with these updates, all from a model of zeros, adds to the model."""
    made = collection(reference)
    for client, arrays in updates.items():
        made.add(client, Member(client, 100), reply(arrays))
    return to_vector(made.combine().weights, NAMES)


def filled(value: float) -> dict[str, np.ndarray]:
    return {"w": np.full((3, 2), value, np.float32), "b": np.full(2, -value, np.float32)}


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    values=st.lists(
        st.sampled_from(EXTREMES) | st.floats(width=32, allow_nan=True), min_size=8, max_size=8
    )
)
def test_no_update_moves_the_mean_by_more_than_its_clip_norm(
    reference: Weights, reply: Reply, values: list[float]
) -> None:
    odd = {
        "w": np.array(values[:6], np.float32).reshape(3, 2),
        "b": np.array(values[6:], np.float32),
    }
    others = {str(k): filled(value) for k, value in enumerate(OTHERS)}
    without = step(reference, reply, {**others, "9": filled(0.0)})
    with_it = step(reference, reply, {**others, "9": odd})
    # Weights are float32: the noisy sum is rounded once, after the mechanism.
    rounding = 1e-6 * float(np.linalg.norm(without)) + 1e-6
    assert np.linalg.norm(with_it - without) <= CLIP / CLIENTS + rounding


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_released_like_a_zero(
    reference: Weights, reply: Reply, value: float
) -> None:
    others = {str(k): filled(other) for k, other in enumerate(OTHERS)}
    with_it = step(reference, reply, {**others, "9": filled(value)})
    assert with_it.tobytes() == step(reference, reply, {**others, "9": filled(0.0)}).tobytes()


def test_the_noise_does_not_depend_on_who_answered(reference: Weights, reply: Reply) -> None:
    """A zero update and a late client look the same to everyone."""
    others = {str(k): filled(other) for k, other in enumerate(OTHERS)}
    all_there = step(reference, reply, {**others, "9": filled(0.0)})
    assert step(reference, reply, others).tobytes() == all_there.tobytes()


def test_the_sum_does_not_depend_on_the_order_of_arrival(reference: Weights, reply: Reply) -> None:
    updates = {str(k): filled(0.01 * 1.7**k) for k in range(CLIENTS)}
    one = step(reference, reply, updates)
    assert step(reference, reply, dict(reversed(updates.items()))).tobytes() == one.tobytes()


def test_a_refusal_is_about_the_message_and_tells_no_value(
    reference: Weights, reply: Reply
) -> None:
    made = collection(reference)
    for bad in (
        reply({"b": np.full(3, 123.456, np.float32)}),
        reply({"b": np.full(2, 123.456, np.float64)}),
        reply({"extra": np.full(1, 123.456, np.float32)}),
        reply(filled(123.456), metrics={"num-examples": 101}),
        reply(filled(123.456), metrics={}),
    ):
        with pytest.raises(ProtocolError) as caught:
            made.add("0", Member("0", 100), bad)
        assert "123" not in str(caught.value) and "norm" not in str(caught.value)
    # A loss that is not a number comes from records, and is not looked at.
    made.add("0", Member("0", 100), reply(filled(1), {"num-examples": 100, "train-loss": np.nan}))
