from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from calyx.client.training.client_level import protect_update
from calyx.shared.config import Config
from calyx.shared.errors import PrivacyError
from calyx.shared.privacy.noise import SeededNoise, SystemNoise, seeded_key
from calyx.shared.privacy.plan import PrivacyPlan, make_plan

Weights = dict[str, torch.Tensor]


class NoNoise:
    """A noise source that returns zeros, to see what the noise would hide."""

    kind = "seeded"

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[int, ...], float]] = []

    def gaussian(self, shape: tuple[int, ...], std: float) -> torch.Tensor:
        self.asked.append((shape, std))
        return torch.zeros(shape)

    def coins(self, n: int, probability: float) -> NDArray[np.bool_]:
        raise AssertionError("protecting an update needs no coins")


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    config = Config.model_validate(
        {"privacy": {"unit": "client", "clip_norm": 0.5}, "training": {"rounds": 2}}
    )
    return make_plan(config, 100)


def weights(scale: float = 1.0) -> Weights:
    generator = torch.Generator().manual_seed(0)
    return {
        "layer.weight": scale * torch.randn(3, 4, generator=generator),
        "layer.bias": scale * torch.randn(3, generator=generator),
        "temperature": torch.tensor(scale),
    }


def moved(before: Weights, by: float) -> Weights:
    return {name: tensor + by * torch.ones_like(tensor) for name, tensor in before.items()}


def distance(first: Weights, second: Weights) -> float:
    parts = [(first[k].double() - second[k].double()).square().sum() for k in first]
    return float(torch.stack(parts).sum().sqrt())


def test_a_small_update_passes_and_a_large_one_is_clipped_over_all_tensors_jointly(
    plan: PrivacyPlan,
) -> None:
    before = weights()
    small, large = moved(before, 0.01), moved(before, 3.0)
    kept = protect_update(before, small, plan, NoNoise())
    assert distance(kept, small) < 1e-6
    cut = protect_update(before, large, plan, NoNoise())
    assert distance(cut, before) == pytest.approx(0.5, rel=1e-5)
    # The direction stays: 16 values that all moved by the same amount still do.
    steps = torch.cat([(cut[k] - before[k]).flatten() for k in before])
    assert torch.allclose(steps, torch.full((16,), 0.5 / 4), atol=1e-6)


def test_every_tensor_gets_noise_of_the_plans_size_also_a_scalar(plan: PrivacyPlan) -> None:
    source = NoNoise()
    protect_update(weights(), moved(weights(), 1.0), plan, source)
    std = plan.noise_multiplier * 0.5
    assert source.asked == [((3, 4), std), ((3,), std), ((), std)]
    noisy = protect_update(weights(), weights(), plan, SystemNoise())
    assert all(bool((noisy[name] != tensor).all()) for name, tensor in weights().items())


def test_the_measured_noise_has_the_plans_deviation(plan: PrivacyPlan) -> None:
    before = {"w": torch.zeros(100_000), "b": torch.zeros(())}
    noisy = protect_update(before, before, plan, SeededNoise(seeded_key("update")))
    z = noisy["w"].double().numpy() / (plan.noise_multiplier * plan.clip_norm)
    # Exact chi-squared test; the seed is fixed, so it cannot fail by chance from run to run.
    tail = stats.chi2.cdf((z**2).sum(), len(z))
    assert min(tail, 1 - tail) > 1e-3
    assert stats.kstest(z, "norm").pvalue > 1e-3


@settings(max_examples=50, deadline=None)
@given(scale=st.floats(0, 1e30), sign=st.sampled_from([-1, 1]))
def test_whatever_was_learnt_moves_the_result_by_at_most_the_clip_norm(
    plan: PrivacyPlan, scale: float, sign: int
) -> None:
    before = {name: torch.zeros_like(tensor) for name, tensor in weights().items()}
    after = {name: tensor * sign * scale for name, tensor in weights().items()}
    result = protect_update(before, after, plan, NoNoise())
    assert distance(result, before) <= 0.5 * (1 + 1e-6)


def test_the_weights_round_only_what_is_noised_already(plan: PrivacyPlan) -> None:
    """Otherwise they would round the bare update, by half their last digit in each coordinate."""

    class Drawn(NoNoise):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def gaussian(self, shape: tuple[int, ...], std: float) -> torch.Tensor:
            return torch.full(shape, self.value, dtype=torch.float64)

    before = {"w": torch.full((3,), 1e6, dtype=torch.float64)}
    nothing = {"w": torch.zeros(3, dtype=torch.float64)}
    learnt, moved_by_one = {"w": before["w"] + 1}, {"w": nothing["w"] + 1}
    clipped = float(protect_update(nothing, moved_by_one, plan, Drawn(0.0))["w"][0])
    for total in np.linspace(-1, 1, 21) * 2.0**-34:  # within half a unit in the last place of 1e6
        drawn = float(total) - clipped
        one = protect_update(before, learnt, plan, Drawn(drawn))
        other = protect_update(before, before, plan, Drawn(clipped + drawn))
        assert torch.equal(one["w"], other["w"])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["layer.weight", "temperature"])
def test_an_update_that_is_not_finite_counts_as_zero_and_is_noised_all_the_same(
    plan: PrivacyPlan, bad: float, name: str
) -> None:
    before = weights()
    after = moved(before, 0.01)
    after[name] = torch.full_like(after[name], bad)
    clean = protect_update(before, after, plan, NoNoise())
    assert all(torch.equal(clean[k], before[k]) for k in before)
    key = seeded_key("same")
    noisy = protect_update(before, after, plan, SeededNoise(key))
    nothing_learnt = protect_update(before, before, plan, SeededNoise(key))
    assert all(torch.equal(noisy[k], nothing_learnt[k]) for k in before)


def test_what_is_not_floating_point_does_not_leave(plan: PrivacyPlan) -> None:
    before = {**weights(), "batches_seen": torch.tensor(3)}
    after = {**moved(weights(), 1.0), "batches_seen": torch.tensor(99)}
    result = protect_update(before, after, plan, SystemNoise())
    assert torch.equal(result["batches_seen"], torch.tensor(3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_stay(plan: PrivacyPlan, dtype: torch.dtype) -> None:
    before = {name: tensor.to(dtype) for name, tensor in weights().items()}
    result = protect_update(before, moved(before, 1.0), plan, SystemNoise())
    assert {tensor.dtype for tensor in result.values()} == {dtype}
    assert {k: v.shape for k, v in result.items()} == {k: v.shape for k, v in before.items()}


def test_the_inputs_are_not_changed(plan: PrivacyPlan) -> None:
    before, after = weights(), moved(weights(), 1.0)
    protect_update(before, after, plan, SystemNoise())
    assert all(torch.equal(before[k], weights()[k]) for k in before)
    assert all(torch.equal(after[k], moved(weights(), 1.0)[k]) for k in after)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unit": "record"}, "record"),
        ({"noise": "none"}, "none"),
        ({"noise": "central"}, "central"),
        ({"noise_multiplier": 0.0}, "0.0"),
        ({"noise_multiplier": math.nan}, "nan"),
    ],
)
def test_a_plan_that_does_not_protect_updates_is_refused(
    plan: PrivacyPlan, change: dict[str, object], words: str
) -> None:
    with pytest.raises(PrivacyError, match=words):
        protect_update(weights(), weights(), replace(plan, **change), SystemNoise())


def test_weights_that_do_not_match_are_refused(plan: PrivacyPlan) -> None:
    fewer = {k: v for k, v in weights().items() if k != "temperature"}
    reshaped = {**weights(), "layer.bias": torch.zeros(1, 3)}
    retyped = {**weights(), "layer.bias": torch.zeros(3, dtype=torch.int64)}
    for after, words in ((fewer, "temperature"), (reshaped, "layer.bias"), (retyped, "int64")):
        with pytest.raises(PrivacyError, match=words):
            protect_update(weights(), after, plan, SystemNoise())
    with pytest.raises(PrivacyError, match="floating-point"):
        counter = {"n": torch.tensor(1)}
        protect_update(counter, counter, plan, SystemNoise())
