from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from calyx.shared.errors import PrivacyError
from calyx.shared.privacy.noise import NoiseSource, SeededNoise, SystemNoise, seeded_key

# Statistical tests on system noise differ from run to run: each raises a false alarm with at
# most this probability.
FALSE_ALARM = 1e-7

SOURCES: list[Callable[[], NoiseSource]] = [lambda: SeededNoise(seeded_key("test")), SystemNoise]
both = pytest.mark.parametrize("make", SOURCES, ids=["seeded", "system"])


@both
def test_gaussians_have_the_asked_for_distribution(make: Callable[[], NoiseSource]) -> None:
    n, std = 200_000, 3.0
    x = make().gaussian((n,), std).double().numpy() / std
    # Exact tests: the mean of n normals is normal, their sum of squares chi-squared.
    assert 2 * stats.norm.sf(abs(x.mean()) * math.sqrt(n)) > FALSE_ALARM
    tail = stats.chi2.cdf((x**2).sum(), n)
    assert min(tail, 1 - tail) * 2 > FALSE_ALARM
    assert stats.kstest(x, "norm").pvalue > FALSE_ALARM
    # Neighbouring values: n times the squared lag-1 correlation is about chi-squared(1).
    correlation = float((x[:-1] * x[1:]).mean())
    assert 2 * stats.norm.sf(abs(correlation) * math.sqrt(n)) > FALSE_ALARM


@both
def test_coins_are_independent_and_fall_with_the_asked_for_probability(
    make: Callable[[], NoiseSource],
) -> None:
    source, n, p = make(), 500, 0.07
    flips = np.stack([source.coins(n, p) for _ in range(400)])
    assert flips.dtype == np.bool_
    assert stats.binomtest(int(flips.sum()), flips.size, p).pvalue > FALSE_ALARM
    # The number of heads in a row varies as a binomial does; a fixed number would not.
    heads = flips.sum(axis=1)
    spread = ((heads - n * p) ** 2).sum() / (n * p * (1 - p))
    tail = stats.chi2.cdf(spread, len(heads))
    assert min(tail, 1 - tail) * 2 > FALSE_ALARM
    assert source.coins(9, 0.0).tolist() == [False] * 9
    assert source.coins(9, 1.0).tolist() == [True] * 9
    assert source.coins(0, 0.5).shape == (0,)


@both
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_gaussians_come_in_double_precision_of_the_asked_for_shape(
    make: Callable[[], NoiseSource], shape: tuple[int, ...]
) -> None:
    drawn = make().gaussian(shape, 1.0)
    assert (drawn.shape, drawn.dtype, drawn.device.type) == (shape, torch.float64, "cpu")
    assert drawn.numel() == 0 or float(drawn.abs().min()) > 0


@both
def test_a_stream_never_repeats_itself(make: Callable[[], NoiseSource]) -> None:
    source = make()
    first, second = source.gaussian((64,), 1.0), source.gaussian((64,), 1.0)
    assert not bool((first == second).any())


def test_equal_keys_give_equal_streams_and_other_keys_others() -> None:
    def stream(key: bytes) -> tuple[list[float], list[bool]]:
        source = SeededNoise(key)
        return source.gaussian((50,), 1.0).tolist(), source.coins(50, 0.5).tolist()

    key = seeded_key("run", 1)
    assert stream(key) == stream(key)
    for position in (0, 15, 16, 31):
        other = bytearray(key)
        other[position] ^= 1
        assert stream(bytes(other))[0] != stream(key)[0]


def test_the_stream_is_aes_128_in_counter_mode() -> None:
    key = bytes(range(32))
    ecb = Cipher(algorithms.AES(key[:16]), modes.ECB()).encryptor()
    start = int.from_bytes(key[16:], "little")
    blocks = b"".join(ecb.update((start + i).to_bytes(16, "little")) for i in range(8))
    words = np.frombuffer(blocks, dtype="<u8")
    # NumPy makes a double of the upper 53 bits of each word.
    expected = (words >> np.uint64(11)) * 2.0**-53 < 0.5
    assert SeededNoise(key).coins(16, 0.5).tolist() == expected.tolist()


def test_system_noise_differs_each_time() -> None:
    first, second = (SystemNoise().gaussian((64,), 1.0) for _ in range(2))
    assert not bool((first == second).any())


def test_the_kind_tells_which_source_was_used() -> None:
    assert SeededNoise(bytes(32)).kind == "seeded"
    assert SystemNoise().kind == "system"


@both
def test_nothing_of_the_stream_can_be_printed_or_copied(make: Callable[[], NoiseSource]) -> None:
    source = make()
    assert repr(source) in ("SeededNoise()", "SystemNoise()")
    assert str(source) == repr(source)
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(PrivacyError, match="must not be copied"):
            attempt(source)


@both
@pytest.mark.parametrize("std", [-1.0, math.inf, math.nan])
def test_noise_without_a_sensible_deviation_is_refused(
    make: Callable[[], NoiseSource], std: float
) -> None:
    with pytest.raises(PrivacyError, match="standard deviation"):
        make().gaussian((2,), std)


@pytest.mark.parametrize("probability", [-0.1, 1.1, math.nan])
def test_a_sampling_rate_that_is_no_probability_is_refused(probability: float) -> None:
    with pytest.raises(PrivacyError, match="not a probability"):
        SystemNoise().coins(2, probability)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused_without_showing_it(length: int) -> None:
    with pytest.raises(PrivacyError, match=f"32 bytes; this one has {length}"):
        SeededNoise(b"\x07" * length)


parts = st.lists(st.one_of(st.binary(max_size=8), st.text(max_size=8), st.integers()), max_size=4)


@settings(max_examples=50)
@given(parts, parts)
def test_keys_are_equal_only_for_equal_parts(
    first: list[bytes | str | int], second: list[bytes | str | int]
) -> None:
    equal = [(type(p), p) for p in first] == [(type(p), p) for p in second]
    assert (seeded_key(*first) == seeded_key(*second)) is equal
    assert len(seeded_key(*first)) == 32


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("ab", "c"), ("a", "bc")),
        (("ab",), ("a", "b")),
        (("a", "b"), ("asb",)),
        ((1,), ("1",)),
        (("1",), (b"1",)),
        ((12, 3), (1, 23)),
        ((-1,), (1,)),
        ((), ("",)),
        (("a",), ("a", "")),
    ],
)
def test_parts_never_run_together(
    first: tuple[bytes | str | int, ...], second: tuple[bytes | str | int, ...]
) -> None:
    assert seeded_key(*first) != seeded_key(*second)


@pytest.mark.parametrize("part", [True, 1.0, None, ["a"]])
def test_a_part_of_another_kind_is_refused(part: object) -> None:
    with pytest.raises(PrivacyError, match="cannot be made from"):
        seeded_key(part)  # type: ignore[arg-type]


def test_noise_is_finer_than_the_weights_it_is_added_to() -> None:
    """Noise rounded to float32 before it is added can reach only some of the outputs.

    Which ones depends on the value, and so gives it away (Mironov 2012).
    """
    for make in SOURCES:
        drawn = make().gaussian((1000,), 1.0)
        on_float32_grid = drawn == drawn.float().double()
        assert float(on_float32_grid.double().mean()) < 0.01
