"""What follows from contributors, value bound and length, and what is refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tenseal as ts
from hypothesis import given, settings
from hypothesis import strategies as st

from calyx.shared.encryption import (
    Aggregator,
    PublicSealer,
    SealingParameters,
    derive_parameters,
    largest_value_bound,
    pack,
    unpack_sum,
    value_bound_of_bits,
)
from calyx.shared.errors import EncryptionError

CNN_LENGTH = 421_642


@pytest.mark.parametrize(
    ("contributors", "bits", "field_bits", "fields", "expansion"),
    [
        (32, 14, 19, 2, 1.90),
        (32, 8, 13, 3, 1.28),
        (32, 16, 21, 2, 1.90),
        (10, 16, 20, 2, 1.90),
        (100, 12, 19, 2, 1.90),
        (1000, 8, 18, 2, 1.90),
        (1000, 16, 26, 1, 3.77),
    ],
)
def test_packing_of_usual_cohorts(contributors, bits, field_bits, fields, expansion):
    p = derive_parameters(
        scheme="bfv",
        contributors=contributors,
        value_bound=value_bound_of_bits(bits),
        length=CNN_LENGTH,
    )
    assert (p.field_bits, p.fields_per_slot) == (field_bits, fields)
    assert p.expansion == pytest.approx(expansion, abs=0.005)
    assert p.security_bits == 128
    assert p.noise_headroom_bits >= 0
    assert p.field_headroom_bits >= 0


@settings(max_examples=300, deadline=None)
@given(
    scheme=st.sampled_from(["none", "bfv", "ckks"]),
    contributors=st.integers(1, 100_000),
    value_bound=st.integers(1, 2**40),
    length=st.integers(1, 2**30),
)
def test_derived_parameters_keep_every_bound_or_are_refused(
    scheme, contributors, value_bound, length
):
    try:
        p = derive_parameters(
            scheme=scheme, contributors=contributors, value_bound=value_bound, length=length
        )
    except EncryptionError as error:
        assert "lower secure_aggregation.bits" in error.hint
        return
    f, fields = p.field_bits, p.fields_per_slot
    assert contributors * value_bound <= 2 ** (f - 1) - 1
    assert f == 2 or contributors * value_bound > 2 ** (f - 2) - 1
    largest_slot = sum((2 ** (f - 1) - 1) << (f * j) for j in range(fields))
    assert largest_slot < 2 ** (f * fields - 1)
    if scheme == "bfv":
        t = p.plain_modulus
        assert largest_slot < t // 2
        assert t % (2 * p.poly_modulus_degree) == 1
        assert p.noise_headroom_bits >= 0
    assert p.chunks * p.data_slots * fields >= length > (p.chunks - 1) * p.data_slots * fields
    assert SealingParameters.from_json(p.to_json()) == p


@pytest.mark.parametrize("contributors", [1, 2, 10, 32, 100, 1000])
@pytest.mark.parametrize("fields", [1, 2, 3])
def test_the_largest_value_bound_is_the_largest(contributors, fields):
    bound = largest_value_bound(contributors=contributors, fields_per_slot=fields)
    assert bound > 0

    def packed(value_bound):
        p = derive_parameters(
            scheme="bfv", contributors=contributors, value_bound=value_bound, length=10
        )
        return p.fields_per_slot

    assert packed(bound) >= fields
    if fields > 1:
        assert packed(bound + 1) < fields
    else:
        with pytest.raises(EncryptionError):
            packed(bound + 1)


def test_no_bound_is_large_enough_when_nothing_fits():
    assert largest_value_bound(contributors=100_000, fields_per_slot=4) == 0


def test_plain_modulus_is_the_smallest_suitable_prime():
    p = derive_parameters(scheme="bfv", contributors=32, value_bound=8191, length=10)
    candidates = range(2**38 + 1, p.plain_modulus, 8192)
    witnesses = [next((d for d in range(3, 2**20, 2) if c % d == 0), None) for c in candidates]
    assert all(witnesses)
    assert not any(p.plain_modulus % d == 0 for d in range(3, 2**20, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contributors": 0}, "contributors 0"),
        ({"contributors": True}, "contributors True"),
        ({"contributors": 100_001}, "from 1 to 100000"),
        ({"value_bound": 0}, "value bound 0"),
        ({"value_bound": 1.5}, r"value bound 1\.5"),
        ({"value_bound": 2**45}, "lower secure_aggregation.bits"),
        ({"length": 0}, "length 0"),
        ({"length": 2**31}, "length"),
        ({"scheme": "rot13"}, "use bfv, ckks or none"),
    ],
)
def test_impossible_requests_say_what_to_change(changes, message):
    wanted = {"scheme": "bfv", "contributors": 10, "value_bound": 100, "length": 10, **changes}
    with pytest.raises(EncryptionError, match=message):
        derive_parameters(**wanted)


@pytest.mark.parametrize("bits", [-1, 0, 1, 41])
def test_impossible_widths_are_refused(bits):
    with pytest.raises(EncryptionError, match=f"values of {bits} bits"):
        value_bound_of_bits(bits)


GOOD = derive_parameters(scheme="bfv", contributors=32, value_bound=8191, length=1000)


@pytest.mark.parametrize(
    "changes",
    [
        {"plain_modulus": 65537},
        {"field_bits": 18},
        {"field_bits": 19.0},
        {"fields_per_slot": 3},
        {"poly_modulus_degree": 2048},
        {"coeff_mod_bits": [60, 60]},
        {"coeff_mod_bits": 54},
        {"scale_bits": 1},
        {"scheme": "ckks"},
        {"scheme": ["bfv"]},
        {"contributors": "32"},
        {"contributors": 33},
        {"length": None},
        {"surprise": 1},
    ],
    ids=str,
)
def test_parameters_of_another_party_must_be_the_derived_ones(changes):
    fields = {**json.loads(GOOD.to_json()), **changes}
    with pytest.raises(EncryptionError, match=r"cannot be read|not those derived|must be|unknown"):
        SealingParameters.from_json(json.dumps(fields))


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '"x"', "{" * 100_000, "[" * 100_000])
def test_what_are_no_parameters_is_refused(text):
    with pytest.raises(EncryptionError, match="cannot be read"):
        SealingParameters.from_json(text)


def test_digests_tell_parameters_apart():
    other = derive_parameters(scheme="bfv", contributors=32, value_bound=8191, length=1001)
    assert GOOD.digest != other.digest
    assert GOOD.digest == SealingParameters.from_json(GOOD.to_json()).digest


@pytest.mark.parametrize("scheme", ["none", "bfv", "ckks"])
def test_announced_sizes_are_those_of_real_uploads(keys, scheme):
    p = derive_parameters(scheme=scheme, contributors=32, value_bound=8191, length=20_000)
    values = np.random.default_rng(0).integers(-8191, 8192, p.length)
    sealed = PublicSealer(p, keys(p).public).seal(values)
    assert sealed.size_bytes == pytest.approx(p.upload_bytes, rel=0.002)
    assert max(map(len, sealed.chunks)) <= p.max_chunk_bytes
    assert len(keys(p).public) <= p.max_context_bytes
    assert p.download_bytes == 80_000


@pytest.mark.parametrize("contributors", [2, 32])
def test_ckks_error_at_the_widest_field_stays_below_the_documented_bound(keys, contributors):
    bound = (2**39 - 1) // contributors
    p = derive_parameters(scheme="ckks", contributors=contributors, value_bound=bound, length=4000)
    assert p.field_bits * p.fields_per_slot == 40
    aggregator, sealer = Aggregator(p, keys(p).public), PublicSealer(p, keys(p).public)
    generator = np.random.default_rng(0)
    for _ in range(contributors):
        aggregator.add(sealer.seal(generator.choice([-bound, bound], p.length)))
    slots = keys(p).decrypt(aggregator.finish().chunks)
    assert np.abs(slots - np.rint(slots)).max() < 2**-8


def test_runs_without_sealing_do_not_load_tenseal():
    code = "import sys, calyx.shared.encryption; sys.exit('tenseal' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- BFV's noise ---------------------------------------------------------------------


@pytest.mark.parametrize("contributors", [1, 32, 300])
def test_measured_noise_stays_within_the_proved_bound(keys, contributors):
    p = derive_parameters(scheme="bfv", contributors=contributors, value_bound=1000, length=100)
    sealer = PublicSealer(p, keys(p).public)
    aggregator = Aggregator(p, keys(p).public)
    generator = np.random.default_rng(0)
    for _ in range(contributors):
        aggregator.add(sealer.seal(generator.integers(-1000, 1001, p.length)))
    (chunk,) = aggregator.finish().chunks
    # The bound leaves room for 2^-40; a measured budget is a whole number of bits.
    assert keys(p).noise_budget(chunk) >= math.floor(p.noise_headroom_bits)
    assert keys(p).noise_budget(chunk) <= p.noise_headroom_bits + 5


def test_sums_are_exact_at_the_edge_of_the_noise_bound(keys):
    # 32 contributors of 16 bits leave a sixth of a bit of the bound.
    p = derive_parameters(scheme="bfv", contributors=32, value_bound=32767, length=9000)
    assert p.noise_headroom_bits < 0.2
    aggregator, sealer = Aggregator(p, keys(p).public), PublicSealer(p, keys(p).public)
    for _ in range(32):
        aggregator.add(sealer.seal(np.full(p.length, -32767)))
    sums = unpack_sum(keys(p).decrypt(aggregator.finish().chunks), p, 32)
    assert (sums == -32 * 32767).all()


def test_an_exhausted_noise_budget_is_an_error_and_not_a_wrong_number(keys):
    # One contributor may use 44 bits. Adding up more than that one is what `Aggregator` refuses.
    p = derive_parameters(scheme="bfv", contributors=1, value_bound=2**42, length=4000)
    pretended = replace(p, contributors=2**20)
    values = np.arange(p.length) % 2
    vector = ts.bfv_vector(keys(p).context, pack(values, p)[0].tolist())
    right = wrong = 0
    # Doubling doubles the noise as well, until decryption fails.
    for doublings in range(1, 13):
        vector.add_(vector)
        chunk = vector.serialize()
        slots = keys(p).decrypt([chunk])
        if keys(p).noise_budget(chunk) > 0:
            sums = unpack_sum(slots, pretended, 2**doublings)
            np.testing.assert_array_equal(sums, values << doublings)
            right += 1
        elif not np.array_equal(slots[0], pack(values, p)[0] << doublings):
            with pytest.raises(EncryptionError, match=f"does not hold {2**doublings} contrib"):
                unpack_sum(slots, pretended, 2**doublings)
            wrong += 1
    assert right >= 1
    assert wrong >= 4
