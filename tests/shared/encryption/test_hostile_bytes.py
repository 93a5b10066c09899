"""Ciphertexts and contexts from parties that do not play by the rules."""

from __future__ import annotations

import struct
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import tenseal as ts

from calyx.shared.encryption import (
    Aggregator,
    PublicSealer,
    context_hash,
    derive_parameters,
    unpack_sum,
)
from calyx.shared.encryption.wire import export_public_context, open_public_context
from calyx.shared.errors import EncryptionError


@pytest.fixture(params=["bfv", "ckks"])
def parameters(request):
    return derive_parameters(scheme=request.param, contributors=3, value_bound=100, length=3000)


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def seal_object(members):
    """`members` as SEAL stores them: one header, one zstd frame of raw blocks."""
    frame = b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(members))
    for start in range(0, len(members), 2**17):
        block = members[start : start + 2**17]
        is_last = start + 2**17 >= len(members)
        frame += struct.pack("<I", len(block) << 3 | is_last)[:3] + block
    return struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 3, 2, 0, 16 + len(frame)) + frame


def crafted_chunk(keys, *, polynomials=2, ntt=0, values=None, slots=4096):
    """A BFV chunk written by hand, well-formed but for what is asked."""
    data = np.zeros(polynomials * 4096, dtype="<u8") if values is None else values
    array = struct.pack("<Q", len(data)) + data.tobytes()
    array = struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 3, 0, 0, 16 + len(array)) + array
    level = struct.pack("<4Q", *keys.context.seal_context().data.first_parms_id())
    head = struct.pack("<BQQQdQ", ntt, polynomials, 4096, 1, 1.0, 1)
    seal = seal_object(level + head + array)
    sizes = varint(slots)
    return b"\x0a" + varint(len(sizes)) + sizes + b"\x12" + varint(len(seal)) + seal


@pytest.fixture
def add(keys, bfv):
    """Give a chunk to an aggregator; returns the decrypted sums."""

    def adding(chunk):
        aggregator = Aggregator(bfv, keys(bfv).public)
        sealed = PublicSealer(bfv, keys(bfv).public).seal(np.zeros(bfv.length, dtype=np.int64))
        aggregator.add(replace(sealed, chunks=(chunk,)))
        return unpack_sum(keys(bfv).decrypt(aggregator.finish().chunks), bfv, 1)

    return adding


@pytest.fixture
def bfv():
    return derive_parameters(scheme="bfv", contributors=3, value_bound=100, length=3000)


def random_residues(count):
    return np.random.default_rng(1).integers(0, 2**53, count).astype("<u8")


def test_a_crafted_ciphertext_is_read_but_fails_the_check_slot(keys, bfv, add):
    # Shows that the crafted ones below are refused for their one fault and nothing else.
    with pytest.raises(EncryptionError, match="does not hold 1 contributions"):
        add(crafted_chunk(keys(bfv), values=random_residues(8192)))


@pytest.mark.parametrize("polynomials", [0, 3, 16])
def test_a_ciphertext_of_other_than_two_polynomials_is_refused(keys, bfv, add, polynomials):
    values = random_residues(polynomials * 4096)
    with pytest.raises(EncryptionError, match=r"was refused|are allowed"):
        add(crafted_chunk(keys(bfv), polynomials=polynomials, values=values))


def test_a_ciphertext_in_the_other_representation_is_refused(keys, bfv, add):
    with pytest.raises(EncryptionError, match="was refused"):
        add(crafted_chunk(keys(bfv), ntt=1, values=random_residues(8192)))


def test_a_ciphertext_that_hides_nothing_is_refused(keys, bfv, add):
    with pytest.raises(EncryptionError, match="was refused"):
        add(crafted_chunk(keys(bfv)))


def test_residues_beyond_the_modulus_are_refused(keys, bfv, add):
    with pytest.raises(EncryptionError, match="cannot be read"):
        add(crafted_chunk(keys(bfv), values=np.full(8192, 2**60, dtype="<u8")))


@pytest.mark.parametrize("slots", [0, 1, 4095, 4097, 2**20, 2**32 - 1])
def test_a_vector_that_lies_about_its_size_is_refused(keys, bfv, add, slots):
    # TenSEAL would copy that many slots out of a buffer of 4,096.
    with pytest.raises(EncryptionError, match="exactly one full chunk"):
        add(crafted_chunk(keys(bfv), values=random_residues(8192), slots=slots))


def test_a_foreign_key_under_our_name_shows_after_decryption(keys, parameters):
    own = keys(parameters)
    kind = "BFV" if parameters.scheme == "bfv" else "CKKS"
    other = ts.context(
        ts.SCHEME_TYPE[kind],
        parameters.poly_modulus_degree,
        plain_modulus=parameters.plain_modulus or None,
        coeff_mod_bit_sizes=list(parameters.coeff_mod_bits),
        n_threads=1,
    )
    foreign = PublicSealer(parameters, export_public_context(other))
    sealed = foreign.seal(np.ones(parameters.length, dtype=np.int64))
    aggregator = Aggregator(parameters, own.public)
    aggregator.add(replace(sealed, context=context_hash(own.public)))
    with pytest.raises(EncryptionError, match=r"contributions|integers"):
        unpack_sum(own.decrypt(aggregator.finish().chunks), parameters, 1)


def test_a_context_with_a_secret_key_is_refused_before_it_is_loaded(keys, parameters):
    private = keys(parameters).context.serialize(
        save_secret_key=True, save_galois_keys=False, save_relin_keys=False
    )
    # Even where it would not be too long.
    roomy = replace(parameters, coeff_mod_bits=(60,) * 8)
    with pytest.raises(EncryptionError, match="holds a secret key"):
        open_public_context(private, roomy)
    with pytest.raises(EncryptionError, match=r"allowed|secret key"):
        PublicSealer(parameters, private)


def test_an_exported_context_has_only_the_public_key(keys, parameters):
    context = ts.Context.load(keys(parameters).public)
    assert context.has_public_key()
    assert not context.has_secret_key()
    assert not context.has_galois_keys()
    assert not context.has_relin_keys()
    assert open_public_context(keys(parameters).public, parameters).is_public()


@pytest.mark.parametrize("where", [0, 1, 40, 100, 300, 20_000, -1])
def test_a_corrupted_context_is_refused_or_does_no_harm(keys, parameters, where):
    data = bytearray(keys(parameters).public)
    data[where] ^= 0x10
    values = np.arange(parameters.length) % 100
    try:
        sealed = PublicSealer(parameters, bytes(data)).seal(values)
    except EncryptionError:
        return
    # What was changed is not used, or the key is another one: its sums are right or an error.
    aggregator = Aggregator(parameters, bytes(data))
    aggregator.add(sealed)
    try:
        sums = unpack_sum(keys(parameters).decrypt(aggregator.finish().chunks), parameters, 1)
    except EncryptionError:
        return
    np.testing.assert_array_equal(sums, values)


@pytest.mark.parametrize("change", ["empty", "truncated", "longer", "doubled", "noise"])
def test_a_malformed_context_is_refused(keys, parameters, change):
    data = keys(parameters).public
    changed = {
        "empty": b"",
        "truncated": data[:-100],
        "longer": data + b"\x22\x01a",
        "doubled": data + data,
        "noise": np.random.default_rng(0).bytes(1000),
    }
    with pytest.raises(EncryptionError):
        PublicSealer(parameters, changed[change])


def test_a_context_of_other_parameters_is_refused(keys):
    ours = derive_parameters(scheme="bfv", contributors=3, value_bound=100, length=10)
    theirs = derive_parameters(scheme="bfv", contributors=32, value_bound=8191, length=10)
    assert ours.plain_modulus != theirs.plain_modulus
    with pytest.raises(EncryptionError, match="other sealing parameters"):
        PublicSealer(ours, keys(theirs).public)


def test_a_context_for_plain_sums_is_refused():
    plain = derive_parameters(scheme="none", contributors=3, value_bound=100, length=10)
    with pytest.raises(EncryptionError, match="must be empty"):
        PublicSealer(plain, b"key")


FUZZ = """
    import sys
    from dataclasses import replace
    import numpy as np
    import tenseal as ts
    from calyx.shared.encryption import Aggregator, PublicSealer, derive_parameters, unpack_sum
    from calyx.shared.encryption.wire import export_public_context, read_chunk
    from calyx.shared.errors import EncryptionError

    p = derive_parameters(scheme="bfv", contributors=3, value_bound=100, length=3000)
    context = ts.context(
        ts.SCHEME_TYPE.BFV, 4096, plain_modulus=p.plain_modulus,
        coeff_mod_bit_sizes=[54, 55], n_threads=1,
    )
    public = export_public_context(context)
    generator = np.random.default_rng(int(sys.argv[1]))
    values = np.arange(p.length) % 100
    sealer = PublicSealer(p, public)
    sealed = sealer.seal(values)

    def mutated(data):
        data, kind = bytearray(data), generator.integers(4)
        # Structure is at the front, and a fault there is the more dangerous one.
        top = len(data) if generator.random() < 0.5 else 200
        at = int(generator.integers(top))
        if kind == 0:
            data[at] ^= 1 << int(generator.integers(8))
        elif kind == 1:
            data[at] = int(generator.integers(256))
        elif kind == 2:
            data[at : at + int(generator.integers(1, 9))] = generator.bytes(4)
        else:
            del data[at : at + int(generator.integers(1, 5000))]
        return bytes(data)

    refused = detected = harmless = 0
    for _ in range(300):
        aggregator = Aggregator(p, public)
        try:
            aggregator.add(replace(sealed, chunks=(mutated(sealed.chunks[0]),)))
        except EncryptionError:
            refused += 1
            continue
        slots = [read_chunk(context, c, p).decrypt() for c in aggregator.finish().chunks]
        try:
            sums = unpack_sum(np.array(slots), p, 1)
        except EncryptionError:
            detected += 1
            continue
        assert (sums == values).all(), "a wrong number"
        harmless += 1
    contexts = 0
    for _ in range(300):
        try:
            PublicSealer(p, mutated(public)).seal(values)
        except EncryptionError:
            contexts += 1
    print(refused, detected, harmless, contexts)
"""


def test_random_damage_never_crashes_the_process_and_never_gives_a_wrong_number():
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FUZZ), "7"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    refused, detected, harmless, contexts = map(int, run.stdout.split())
    assert refused + detected + harmless == 300
    assert refused > 150
    assert detected > 10
    assert contexts > 100
