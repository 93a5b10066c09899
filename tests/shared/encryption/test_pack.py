"""Fields in slots, without encryption."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calyx.shared.encryption import derive_parameters, largest_value_bound, pack, unpack_sum
from calyx.shared.errors import EncryptionError


@st.composite
def cohorts(draw):
    """Parameters with one to four fields a slot, and up to a number of vectors."""
    room = draw(st.integers(1, 50))
    fields = draw(st.integers(1, 4))
    top = largest_value_bound(contributors=room, fields_per_slot=fields)
    bound = draw(st.one_of(st.just(top), st.integers(1, top)))
    length = draw(st.one_of(st.integers(1, 30), st.integers(4090, 4100), st.integers(8185, 8195)))
    p = derive_parameters(scheme="bfv", contributors=room, value_bound=bound, length=length)
    return p, draw(st.integers(1, room)), draw(st.integers(0, 2**32))


@settings(max_examples=80, deadline=None)
@given(cohorts())
def test_sums_of_packed_vectors_unpack_to_the_sums(cohort):
    p, count, seed = cohort
    generator = np.random.default_rng(seed)
    bound = p.value_bound
    vectors = [generator.integers(-bound, bound + 1, p.length) for _ in range(count - 1)]
    vectors.append(generator.choice([-bound, bound], p.length))
    total = sum(pack(v, p) for v in vectors)
    # What BFV does: everything modulo t, balanced.
    t = p.plain_modulus
    decrypted = (total + t // 2) % t - t // 2
    np.testing.assert_array_equal(unpack_sum(decrypted, p, count), sum(vectors))


@settings(max_examples=80, deadline=None)
@given(cohorts(), st.sampled_from([-1, 1]))
def test_all_contributors_at_the_same_extreme_do_not_carry(cohort, sign):
    p, _, _ = cohort
    everyone = pack(np.full(p.length, sign * p.value_bound), p) * p.contributors
    assert np.abs(everyone).max() <= p.plain_modulus // 2
    sums = unpack_sum(everyone, p, p.contributors)
    assert (sums == sign * p.contributors * p.value_bound).all()


SMALL = derive_parameters(scheme="bfv", contributors=5, value_bound=100, length=9000)


def packed_sum(count=5):
    return pack(np.arange(9000) % 100, SMALL) * count


def test_the_last_slot_counts_the_vectors():
    assert (packed_sum(3)[:, -1] == 3).all()


def test_a_check_slot_changed_at_random_shows():
    generator, half = np.random.default_rng(0), SMALL.plain_modulus // 2
    for _ in range(200):
        total = packed_sum()
        total[0, -1] = generator.integers(-half, half)
        with pytest.raises(EncryptionError, match="does not hold 5 contributions"):
            unpack_sum(total, SMALL, 5)


def test_something_in_the_padding_shows():
    total = packed_sum()
    unused = SMALL.chunks * SMALL.data_slots * SMALL.fields_per_slot - SMALL.length
    assert unused > 0
    top_field = 1 << (SMALL.field_bits * (SMALL.fields_per_slot - 1))
    total[-1, -2] += top_field
    with pytest.raises(EncryptionError, match="cannot add up"):
        unpack_sum(total, SMALL, 5)


@pytest.mark.parametrize("extra", [1, -1001])
def test_a_sum_beyond_what_contributors_can_send_shows(extra):
    values = np.zeros(9000, dtype=np.int64)
    total = pack(values, SMALL) * 5
    total[0, 0] = 500 + extra
    with pytest.raises(EncryptionError, match="cannot add up"):
        unpack_sum(total, SMALL, 5)


def test_something_above_the_highest_field_shows():
    total = packed_sum()
    total[0, 0] += 1 << (SMALL.field_bits * SMALL.fields_per_slot)
    with pytest.raises(EncryptionError, match="cannot add up"):
        unpack_sum(total, SMALL, 5)


@pytest.mark.parametrize("contributors", [0, 6, -1])
def test_an_impossible_number_of_contributors_is_refused(contributors):
    with pytest.raises(EncryptionError, match="allow 1 to 5"):
        unpack_sum(packed_sum(), SMALL, contributors)


def test_another_number_of_slots_is_refused():
    with pytest.raises(EncryptionError, match="slots"):
        unpack_sum(packed_sum()[:, :-1], SMALL, 5)


@pytest.mark.parametrize("fault", [0.4, -0.3, np.nan, np.inf, 1e300])
def test_floats_that_are_no_integers_are_refused(fault):
    floats = packed_sum().astype(np.float64)
    np.testing.assert_array_equal(unpack_sum(floats + 0.1, SMALL, 5), 5 * (np.arange(9000) % 100))
    floats[0, 7] += fault
    with pytest.raises(EncryptionError, match="not close to integers"):
        unpack_sum(floats, SMALL, 5)
