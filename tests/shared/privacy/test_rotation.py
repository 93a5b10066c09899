"""The randomised Walsh-Hadamard rotation."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calyx.shared.errors import PrivacyError
from calyx.shared.privacy.rotation import Rotation

lengths = st.one_of(st.integers(1, 300), st.sampled_from([511, 512, 513, 4095, 4096, 9258]))


@settings(deadline=None)
@given(lengths, st.binary(max_size=40), st.integers(0, 2**32))
def test_it_keeps_norms_and_inner_products_and_can_be_undone(length, seed, data_seed):
    turn, generator = Rotation(length, seed), np.random.default_rng(data_seed)
    x, y = generator.standard_normal((2, length)) * 10.0 ** generator.integers(-6, 7)
    turned, other = turn.forward(x), turn.forward(y)
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(x), rel=1e-12)
    scale = np.linalg.norm(x) * np.linalg.norm(y)
    assert abs(turned @ other - x @ y) <= 1e-12 * scale
    np.testing.assert_allclose(turn.inverse(turned), x, atol=1e-12 * np.linalg.norm(x))
    np.testing.assert_allclose(turn.forward(turn.inverse(x)), x, atol=1e-12 * np.linalg.norm(x))


def test_it_is_linear_so_sums_can_be_turned_back_once():
    turn, generator = Rotation(1000, b"round 1"), np.random.default_rng(0)
    xs = generator.standard_normal((7, 1000)).astype(np.float32)
    total = turn.inverse(sum(turn.forward(x) for x in xs))
    np.testing.assert_allclose(total, xs.astype(np.float64).sum(axis=0), atol=1e-12)


@pytest.mark.parametrize("length", [4096, 9258, 8191])
def test_it_spreads_single_coordinates_evenly(length):
    # sqrt(d) times the largest coordinate of a spread unit vector is about sqrt(2 ln d) = 4.3;
    # without the rotation it is sqrt(d) > 60.
    turn = Rotation(length, b"any")
    for position in (0, 1, length // 3, length // 2, length - 2, length - 1):
        unit = np.zeros(length)
        unit[position] = 1.0
        assert np.abs(turn.forward(unit)).max() * math.sqrt(length) < 6.5


def test_the_same_seed_gives_the_same_bits_everywhere():
    x = np.arange(1000, dtype=np.float32) / 7
    turned = Rotation(1000, b"pinned").forward(x)
    digest = hashlib.sha256(turned.astype("<f8").tobytes()).hexdigest()
    assert digest == "3f9fa627b6c82676acacf207c803f28fa052ec563504c8bdb0c19b18f9eae033"
    assert not np.allclose(Rotation(1000, b"other").forward(x), turned)


@pytest.mark.parametrize("length", [0, -1])
def test_nothing_cannot_be_rotated(length):
    with pytest.raises(PrivacyError, match="cannot be rotated"):
        Rotation(length, b"")


def test_a_vector_of_another_length_is_refused():
    turn = Rotation(10, b"")
    for shape in ((9,), (10, 1)):
        with pytest.raises(PrivacyError, match="rotation of 10 entries"):
            turn.forward(np.zeros(shape))
        with pytest.raises(PrivacyError, match="rotation of 10 entries"):
            turn.inverse(np.zeros(shape))
