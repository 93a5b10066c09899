"""What plain, BFV and CKKS sums must have in common: one suite, three schemes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calyx.shared.encryption import (
    Aggregator,
    PublicSealer,
    SealedVector,
    derive_parameters,
    pack,
    unpack_sum,
    value_bound_of_bits,
)
from calyx.shared.errors import EncryptionError

# One property, three schemes: hypothesis sees one test run by three classes.
FEW = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.differing_executors]
)


class SealedSumContract:
    scheme: str
    max_sum_bits: int

    def small(self, **changes):
        chosen = {"contributors": 3, "value_bound": 100, "length": 50, **changes}
        return derive_parameters(scheme=self.scheme, **chosen)

    def seal(self, keys, p, values):
        return PublicSealer(p, keys(p).public).seal(np.asarray(values, dtype=np.int64))

    @FEW
    @given(data=st.data())
    def test_a_sum_is_exact_for_any_size_bits_and_contributors(self, keys, data):
        count = data.draw(st.integers(1, 6), "contributors that arrive")
        room = data.draw(st.integers(count, 40), "contributors allowed")
        bits = data.draw(st.integers(2, self.max_sum_bits - 1 - room.bit_length()), "bits")
        length = data.draw(st.one_of(st.integers(1, 40), st.integers(8000, 9000)), "length")
        bound = value_bound_of_bits(bits)
        p = derive_parameters(
            scheme=self.scheme, contributors=room, value_bound=bound, length=length
        )
        generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
        choices = np.array([-bound, -1, 0, 1, bound])
        vectors = [
            np.where(
                generator.random(length) < 0.5,
                generator.choice(choices, length),
                generator.integers(-bound, bound + 1, length),
            )
            for _ in range(count)
        ]
        public = keys(p).public
        sealer, aggregator = PublicSealer(p, public), Aggregator(p, public)
        for vector in vectors:
            aggregator.add(sealer.seal(vector))
        total = aggregator.finish()
        assert total.contributors == count
        sums = unpack_sum(keys(p).decrypt(total.chunks), p, total.contributors)
        assert sums.dtype == np.int64
        np.testing.assert_array_equal(sums, sum(vectors))

    @pytest.mark.parametrize("sign", [-1, 1])
    @pytest.mark.parametrize("room", [2, 32])
    def test_a_sum_is_exact_when_every_contributor_sends_the_extreme(self, keys, sign, room):
        bound = (2 ** (self.max_sum_bits - 1) - 1) // room
        p = self.small(contributors=room, value_bound=bound, length=9000)
        assert p.field_bits == self.max_sum_bits
        public = keys(p).public
        sealer, aggregator = PublicSealer(p, public), Aggregator(p, public)
        for _ in range(room):
            aggregator.add(sealer.seal(np.full(p.length, sign * bound)))
        sums = unpack_sum(keys(p).decrypt(aggregator.finish().chunks), p, room)
        assert (sums == sign * room * bound).all()

    @pytest.mark.parametrize("value", [101, -101, 2**63 - 1, -(2**63)])
    def test_a_value_out_of_bounds_is_an_error_and_never_wraps(self, keys, value):
        p = self.small()
        values = np.zeros(p.length, dtype=np.int64)
        values[17] = value
        with pytest.raises(EncryptionError, match="bound is 100"):
            self.seal(keys, p, values)

    @pytest.mark.parametrize(
        "values",
        [
            np.zeros(49, dtype=np.int64),
            np.zeros((50, 1), dtype=np.int64),
            np.zeros(50),
            np.zeros(50, dtype=bool),
        ],
        ids=["short", "two-dimensional", "float", "bool"],
    )
    def test_another_shape_or_type_is_an_error(self, keys, values):
        p = self.small()
        with pytest.raises(EncryptionError, match="must be integers"):
            PublicSealer(p, keys(p).public).seal(values)

    def test_a_slot_that_would_wrap_is_an_error(self, keys):
        p = self.small()
        slots = pack(np.zeros(p.length, dtype=np.int64), p)
        slots[0, 5] = 2 ** (p.field_bits * p.fields_per_slot - 1)
        with pytest.raises(EncryptionError, match="would wrap"):
            PublicSealer(p, keys(p).public).seal_slots(slots)

    def test_equal_vectors_of_two_contributors_are_both_added(self, keys):
        p = self.small()
        aggregator = Aggregator(p, keys(p).public)
        for _ in range(2):
            aggregator.add(self.seal(keys, p, np.arange(p.length)))
        sums = unpack_sum(keys(p).decrypt(aggregator.finish().chunks), p, 2)
        np.testing.assert_array_equal(sums, 2 * np.arange(p.length))

    def refused(self, keys, p, bad, match, **options):
        """`bad` is refused with this reason, and the sum is as if it had never come."""
        aggregator = Aggregator(p, keys(p).public, **options)
        good = np.arange(p.length) % 100
        aggregator.add(self.seal(keys, p, good))
        with pytest.raises(EncryptionError, match=match):
            aggregator.add(bad)
        aggregator.add(self.seal(keys, p, good))
        assert aggregator.contributors == 2
        sums = unpack_sum(keys(p).decrypt(aggregator.finish().chunks), p, 2)
        np.testing.assert_array_equal(sums, 2 * good)

    def test_a_replay_within_the_round_is_refused(self, keys):
        p = self.small()
        aggregator = Aggregator(p, keys(p).public)
        sealed = self.seal(keys, p, np.arange(p.length))
        aggregator.add(sealed)
        with pytest.raises(EncryptionError, match="replay"):
            aggregator.add(sealed)
        sums = unpack_sum(keys(p).decrypt(aggregator.finish().chunks), p, 1)
        np.testing.assert_array_equal(sums, np.arange(p.length))

    def test_a_replay_of_an_earlier_round_is_refused(self, keys):
        p = self.small()
        earlier = Aggregator(p, keys(p).public)
        old = self.seal(keys, p, np.ones(p.length))
        earlier.add(old)
        self.refused(keys, p, old, "replay", replayed=earlier.digests)

    def test_other_parameters_are_refused(self, keys):
        p = self.small()
        other = self.seal(keys, self.small(contributors=2), np.zeros(p.length))
        self.refused(keys, p, other, "other sealing parameters")

    def test_another_context_is_refused(self, keys):
        p = self.small()
        bad = replace(self.seal(keys, p, np.zeros(p.length)), context="0" * 64)
        self.refused(keys, p, bad, "another public key")

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_another_number_of_chunks_is_refused(self, keys, count):
        p = self.small(length=2 * self.small().data_slots * self.small().fields_per_slot)
        assert p.chunks == 2
        sealed = self.seal(keys, p, np.zeros(p.length))
        bad = replace(sealed, chunks=(sealed.chunks * 2)[:count])
        self.refused(keys, p, bad, f"has {count} chunks; 2 are expected")

    @pytest.mark.parametrize("change", ["oversized", "truncated", "longer", "empty", "noise"])
    def test_a_malformed_chunk_is_refused(self, keys, change):
        # The fault is in the last of several chunks: nothing of the upload may be added.
        p = self.small(length=2 * self.small().data_slots * self.small().fields_per_slot)
        sealed = self.seal(keys, p, np.ones(p.length))
        last = sealed.chunks[-1]
        changed = {
            "oversized": last + bytes(p.max_chunk_bytes),
            "truncated": last[:-1],
            "longer": last + b"\0",
            "empty": b"",
            "noise": np.random.default_rng(0).bytes(len(last)),
        }
        bad = replace(sealed, chunks=(*sealed.chunks[:-1], changed[change]))
        self.refused(keys, p, bad, "chunk|ciphertext|serialised object|bytes")

    def test_more_vectors_than_the_fields_hold_are_refused(self, keys):
        p = self.small()
        aggregator = Aggregator(p, keys(p).public)
        for _ in range(p.contributors):
            aggregator.add(self.seal(keys, p, np.full(p.length, 100)))
        with pytest.raises(EncryptionError, match="already holds 3"):
            aggregator.add(self.seal(keys, p, np.full(p.length, 100)))
        sums = unpack_sum(keys(p).decrypt(aggregator.finish().chunks), p, 3)
        assert (sums == 300).all()

    def test_an_empty_sum_is_an_error(self, keys):
        p = self.small()
        with pytest.raises(EncryptionError, match="no sealed vector"):
            Aggregator(p, keys(p).public).finish()

    @pytest.mark.parametrize("stated", [1, 3])
    def test_a_wrong_number_of_contributors_shows(self, keys, stated):
        p = self.small()
        aggregator = Aggregator(p, keys(p).public)
        for _ in range(2):
            aggregator.add(self.seal(keys, p, np.zeros(p.length)))
        slots = keys(p).decrypt(aggregator.finish().chunks)
        with pytest.raises(EncryptionError, match=f"does not hold {stated} contributions"):
            unpack_sum(slots, p, stated)

    def test_a_contributor_that_breaks_its_bound_shows(self, keys):
        p = self.small()
        slots = pack(np.zeros(p.length, dtype=np.int64), p)
        slots[0, 0] = 3 * 100 + 1
        aggregator = Aggregator(p, keys(p).public)
        if self.scheme == "none":
            with pytest.raises(EncryptionError, match="out of bounds"):
                aggregator.add(PublicSealer(p, b"").seal_slots(slots))
            return
        aggregator.add(PublicSealer(p, keys(p).public).seal_slots(slots))
        with pytest.raises(EncryptionError, match="cannot add up"):
            unpack_sum(keys(p).decrypt(aggregator.finish().chunks), p, 1)

    def test_check_slots_written_by_the_caller_are_left_to_it(self, keys):
        p = self.small()
        slots = pack(np.arange(p.length), p)
        slots[:, -1] = 4242
        aggregator = Aggregator(p, keys(p).public)
        if self.scheme == "none":
            slots[:, -1] = 42
        aggregator.add(PublicSealer(p, keys(p).public).seal_slots(slots))
        table = keys(p).decrypt(aggregator.finish().chunks)
        np.testing.assert_allclose(table[:, -1], slots[:, -1], atol=0.01)
        with pytest.raises(EncryptionError, match="contributions"):
            unpack_sum(table, p, 1)
        sums = unpack_sum(table, p, 1, check="caller")
        np.testing.assert_array_equal(sums, np.arange(p.length))

    def test_a_sum_can_be_read_like_an_upload(self, keys):
        # Sums of sums: a tree of aggregators may add what others have added.
        p = self.small()
        sealed = [self.seal(keys, p, np.full(p.length, n)) for n in (1, 2, 3)]
        first, second = Aggregator(p, keys(p).public), Aggregator(p, keys(p).public)
        first.add(sealed[0])
        first.add(sealed[1])
        part = first.finish()
        second.add(SealedVector(part.chunks, part.parameters, part.context))
        second.add(sealed[2])
        sums = unpack_sum(keys(p).decrypt(second.finish().chunks), p, 3)
        assert (sums == 6).all()

    def test_nothing_is_printed_and_no_threads_are_left_running(self, keys, capfd, count_threads):
        p = self.small(length=20_000)
        before = count_threads()
        aggregator, sealer = Aggregator(p, keys(p).public), PublicSealer(p, keys(p).public)
        aggregator.add(sealer.seal(np.ones(p.length, dtype=np.int64)))
        # TenSEAL keeps one worker for each context, instead of one for each core.
        assert count_threads() - before <= 2
        unpack_sum(keys(p).decrypt(aggregator.finish().chunks), p, 1)
        assert capfd.readouterr() == ("", "")


class TestPlain(SealedSumContract):
    scheme, max_sum_bits = "none", 45


class TestBfv(SealedSumContract):
    # 32 contributors leave 2^42.25 for the plain modulus; two have more room.
    scheme, max_sum_bits = "bfv", 42


class TestCkks(SealedSumContract):
    scheme, max_sum_bits = "ckks", 40
