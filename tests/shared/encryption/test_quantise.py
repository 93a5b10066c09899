"""Clipping, the grid, and the two roundings."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calyx.shared.encryption.quantise import (
    IntegerGrid,
    bounded_rounding,
    clipped,
    contribution,
    dithered_rounding,
)
from calyx.shared.errors import EncryptionError

vectors = arrays(np.float64, st.integers(1, 30), elements=st.floats(-1e6, 1e6, allow_nan=False))


@given(vectors, st.floats(1e-6, 1e6))
def test_a_clipped_vector_is_within_the_norm_and_keeps_its_direction(x, norm):
    y = clipped(x, norm)
    assert np.linalg.norm(y) <= norm or np.array_equal(x, y)
    assert np.linalg.norm(y) <= norm * (1 + 1e-15)
    if np.linalg.norm(x) <= norm:
        np.testing.assert_array_equal(y, x)
    else:
        np.testing.assert_allclose(y, x * (norm / np.linalg.norm(x)), rtol=1e-9, atol=1e-300)


@given(vectors, vectors, st.floats(1e-3, 1e3), st.integers(1, 1000))
def test_scaling_and_clamping_never_spread_two_vectors_apart(x, y, step, clamp):
    size = min(len(x), len(y))
    x, y, grid = x[:size], y[:size], IntegerGrid(step, clamp)
    apart = np.abs(grid.scaled(x) - grid.scaled(y))
    assert (apart <= np.abs(x - y) / step * (1 + 1e-9) + 1e-9).all()
    assert np.abs(grid.scaled(x)).max() <= clamp


@given(vectors, st.integers(0, 2**32))
def test_dithered_rounding_goes_to_a_neighbouring_integer(x, seed):
    w = dithered_rounding(x, np.random.default_rng(seed))
    assert w.dtype == np.int64
    assert ((w == np.floor(x)) | (w == np.ceil(x))).all()


@given(st.integers(1, 2**40), st.integers(0, 2**32))
def test_rounding_never_leaves_the_clamp(clamp, seed):
    grid = IntegerGrid(1.0, clamp)
    x = np.array([clamp, -clamp, clamp - 2**-10, 1e300, -1e300] * 20)
    assert np.abs(dithered_rounding(grid.scaled(x), np.random.default_rng(seed))).max() <= clamp


class Fixed:
    """A generator that always draws the same dither."""

    def __init__(self, dither):
        self.dither = dither

    def random(self, shape):
        assert shape == self.dither.shape
        return self.dither


def dyadic(low, high):
    """Vectors of 12 multiples of 2^-20, whose sums and differences are exact."""
    return arrays(np.int64, 12, elements=st.integers(low * 2**20, high * 2**20 - 1)).map(
        lambda n: n / 2**20
    )


@given(dyadic(-50, 50), dyadic(-5, 5), dyadic(0, 1))
def test_for_one_dither_two_roundings_differ_by_less_than_one_more_than_the_vectors(x, u, dither):
    # The worst case over the dither: |w' - w|_2 <= |x' - x|_2 + sqrt(d), coordinate by coordinate.
    y = x + u
    first, second = (dithered_rounding(v, Fixed(dither)) for v in (x, y))
    moved = np.abs(second - first)
    assert (moved < np.abs(y - x) + 1).all()
    delta2 = np.linalg.norm(y - x) + math.sqrt(12)
    assert np.linalg.norm(moved) <= delta2
    assert moved.sum() <= math.sqrt(12) * delta2


@pytest.mark.parametrize("v", [0.0, 0.25, -0.5, 1.5, -2.7, 3.0])
def test_over_all_dithers_the_squared_difference_is_at_most_a_quarter_more(v):
    # E k^2 = v^2 + g(1 - g), the term that the privacy bound uses; exact over a fine dither.
    dither = (np.arange(100_000) + 0.5) / 100_000
    for x in (0.0, 0.3, -7.9):
        k = dithered_rounding(np.full_like(dither, x + v), Fixed(dither)) - dithered_rounding(
            np.full_like(dither, x), Fixed(dither)
        )
        g = v - math.floor(v)
        assert np.mean(k) == pytest.approx(v, abs=1e-4)
        assert np.mean(k**2) == pytest.approx(v**2 + g * (1 - g), abs=1e-3)
        assert set(np.unique(k)) <= {math.floor(v), math.floor(v) + 1}


def test_rounding_is_unbiased():
    # 200,000 draws with variance g(1 - g): 5 standard errors, false alarm 6e-7 for each value.
    generator = np.random.default_rng(5)
    for value in (0.1, -3.7, 1234.5):
        mean = dithered_rounding(np.full(200_000, value), generator).mean()
        g = value - math.floor(value)
        assert abs(mean - value) < 5 * math.sqrt(g * (1 - g) / 200_000)


def test_bounded_rounding_keeps_its_bound_and_draws_until_it_does():
    generator = np.random.default_rng(1)
    x = np.full(400, 0.5)
    # Norms squared are binomial(400, 1/2): half of the draws are above 200.
    norms = [np.linalg.norm(bounded_rounding(x, math.sqrt(200), generator)) for _ in range(200)]
    assert max(norms) <= math.sqrt(200)
    assert len(set(norms)) > 10


def test_bounded_rounding_gives_up_on_what_cannot_fit():
    with pytest.raises(EncryptionError, match="clip it first"):
        bounded_rounding(np.full(4, 10.0), 19.0, np.random.default_rng(0))


def test_sums_come_back_within_one_step_a_vector():
    generator = np.random.default_rng(2)
    grid = IntegerGrid(0.01, 1000)
    xs = [generator.uniform(-9, 9, 500).astype(np.float32) for _ in range(7)]
    total = sum(dithered_rounding(grid.scaled(x), generator) for x in xs)
    np.testing.assert_allclose(grid.restored(total), sum(xs), atol=7 * 0.01)


def test_the_clamped_share_is_counted():
    assert (
        IntegerGrid(0.5, 4).clamped_share(np.array([0.0, 2.0, 2.1, -3.0], dtype=np.float32)) == 0.5
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad):
    x = np.array([0.0, bad], dtype=np.float32)
    for use in (
        IntegerGrid(1.0, 5).scaled,
        IntegerGrid(1.0, 5).clamped_share,
        lambda v: clipped(v, 1.0),
    ):
        with pytest.raises(EncryptionError, match="NaN or infinity"):
            use(x)


@pytest.mark.parametrize(("step", "clamp"), [(0.0, 1), (math.nan, 1), (math.inf, 1), (1.0, 0)])
def test_an_impossible_grid_is_refused(step, clamp):
    with pytest.raises(EncryptionError, match="not make a usable grid"):
        IntegerGrid(step, clamp)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_a_contribution_without_a_finite_norm_counts_as_zero(bad: float) -> None:
    """An error would tell it apart from others before there is noise on it."""
    assert contribution(np.array([0.1, bad, bad]), 1.0).tolist() == [0.0, 0.0, 0.0]
    assert contribution(np.array([3.0, 4.0]), 1.0) == pytest.approx([0.6, 0.8])
    assert contribution(np.array([0.3, 0.4]), 1.0).tolist() == [0.3, 0.4]
