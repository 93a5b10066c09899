"""Dishonest servers and broken ciphertexts: nothing but the sum is released."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calyx.authority.local import LocalAuthority
from calyx.authority.log.events import Failed, Granted, Refused
from calyx.authority.release import MAX_FAILED_PROOFS
from calyx.shared.encryption import PublicSealer, SealedSum, derive_parameters, pack
from calyx.shared.encryption.wire import open_public_context, read_chunk
from calyx.shared.errors import ReleaseRefused
from calyx.shared.protocol.authority.interface import Refusal
from tests.authority.decisions import TotalOf, decisions, refusal


def public_chunks(run: Any, sealed: Any) -> list[Any]:
    """A server's view of ciphertexts: it can compute on them."""
    context = open_public_context(run.opening.public_context, run.parameters)
    return [read_chunk(context, chunk, run.parameters) for chunk in sealed.chunks]


def as_sum(run: Any, chunks: Sequence[Any], count: int) -> SealedSum:
    raw = tuple(c if isinstance(c, bytes) else c.serialize() for c in chunks)
    context = hashlib.sha256(run.opening.public_context).hexdigest()
    return SealedSum(raw, run.parameters.digest, context, count)


def one_client_alone(run: Any, uploads: Sequence[Any]) -> SealedSum:
    return as_sum(run, uploads[0].sealed.chunks, len(uploads))


def one_client_scaled(run: Any, uploads: Sequence[Any]) -> SealedSum:
    """Right count in the check slot, if that were a plain counter."""
    chunks = public_chunks(run, uploads[0].sealed)
    return as_sum(run, [chunk * len(uploads) for chunk in chunks], len(uploads))


def others_masked(run: Any, uploads: Sequence[Any]) -> SealedSum:
    """The check slots of all clients, but the data of the first one only."""
    mask = [0] * run.parameters.data_slots + [1]
    totals = public_chunks(run, uploads[0].sealed)
    for upload in uploads[1:]:
        for total, chunk in zip(totals, public_chunks(run, upload.sealed), strict=True):
            total.add_(chunk * mask)
    return as_sum(run, totals, len(uploads))


def one_chunk_of_one_client(run: Any, uploads: Sequence[Any]) -> SealedSum:
    honest = list(run.add(uploads).chunks)
    return as_sum(run, [uploads[0].sealed.chunks[0], *honest[1:]], len(uploads))


def chunks_exchanged(run: Any, uploads: Sequence[Any]) -> SealedSum:
    first, second, *rest = run.add(uploads).chunks
    return as_sum(run, [second, first, *rest], len(uploads))


def one_left_out(run: Any, uploads: Sequence[Any]) -> SealedSum:
    return replace(run.add(uploads[:-1]), contributors=len(uploads))


def one_added_that_has_no_receipt(run: Any, uploads: Sequence[Any]) -> SealedSum:
    extra = run.upload(1, run.devices[4])
    return replace(run.add([*uploads, extra]), contributors=len(uploads))


def the_server_adds_one_to_a_slot(run: Any, uploads: Sequence[Any]) -> SealedSum:
    slots = np.zeros((run.parameters.chunks, run.parameters.slots_per_chunk), dtype=np.int64)
    slots[0, 0] = 1
    own = PublicSealer(run.parameters, run.opening.public_context).seal_slots(slots)
    totals = [
        a + b
        for a, b in zip(public_chunks(run, run.add(uploads)), public_chunks(run, own), strict=True)
    ]
    return as_sum(run, totals, len(uploads))


def the_server_encrypts_what_it_likes(run: Any, uploads: Sequence[Any]) -> SealedSum:
    values = np.zeros(run.parameters.length, dtype=np.int64)
    slots = pack(values, run.parameters)
    slots[:, -1] = len(uploads)
    own = PublicSealer(run.parameters, run.opening.public_context).seal_slots(slots)
    return as_sum(run, own.chunks, len(uploads))


def an_earlier_round(run: Any, uploads: Sequence[Any]) -> SealedSum:
    return run.add([run.upload(7, device) for device in run.devices[: len(uploads)]])


ATTACKS = [
    one_client_alone,
    one_client_scaled,
    others_masked,
    one_chunk_of_one_client,
    chunks_exchanged,
    one_left_out,
    one_added_that_has_no_receipt,
    the_server_adds_one_to_a_slot,
    the_server_encrypts_what_it_likes,
    an_earlier_round,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_whatever_is_not_the_sum_of_the_uploads_with_receipts_is_not_released(
    attack: Callable[..., SealedSum], authority: LocalAuthority, run: Any, folder: Path
) -> None:
    uploads = run.uploads(1)
    request, chunks = run.request(1, uploads, attack(run, uploads))
    assert refusal(authority, request, chunks) == Refusal.PROOF
    # The round is spent, even for the honest sum: otherwise the sender could keep trying.
    assert refusal(authority, request, chunks) == Refusal.PROOF
    assert refusal(authority, *run.request(1, uploads)) == Refusal.ALREADY_RELEASED
    kinds = [type(d) for d in decisions(folder)]
    assert kinds == [Granted, Failed, Refused, Refused]


def test_few_failed_proofs_suspend_the_run(authority: LocalAuthority, run: Any) -> None:
    for round in range(1, MAX_FAILED_PROOFS + 1):
        uploads = run.uploads(round)
        asked = run.request(round, uploads, one_client_alone(run, uploads))
        assert refusal(authority, *asked) == Refusal.PROOF
    round = MAX_FAILED_PROOFS + 1
    assert refusal(authority, *run.request(round, run.uploads(round))) == Refusal.SUSPENDED_RUN


def test_a_contributor_out_of_bounds_spends_the_round_but_not_the_run(
    authority: LocalAuthority, run: Any, total_of: TotalOf
) -> None:
    for round in range(1, MAX_FAILED_PROOFS + 2):
        uploads = run.uploads(round, count=2)
        cheat = run.devices[2]
        slots = pack(np.zeros(run.parameters.length, dtype=np.int64), run.parameters)
        slots[0, 0] = 4 * run.parameters.value_bound
        honest = run.upload(round, cheat)
        nonce = honest.receipt.nonce
        tagged = run.tag_keys(cheat).tagged(slots, run.parameters.plain_modulus, round, nonce)
        sealer = PublicSealer(run.parameters, run.opening.public_context)
        sealed = sealer.seal_slots(tagged)
        receipt = replace(honest.receipt, upload_hash=sealed.digest).signed(cheat.signing)
        uploads.append(replace(honest, sealed=sealed, receipt=receipt))
        assert refusal(authority, *run.request(round, uploads)) == Refusal.RANGE
    uploads = run.uploads(99)
    released = authority.release(*run.request(99, uploads))
    assert (released.values == total_of(uploads)).all()


def broken(chunks: Sequence[bytes], how: str) -> tuple[bytes, ...]:
    first = chunks[0]
    middle = len(first) // 2
    return {
        "flipped": (first[:middle] + bytes([first[middle] ^ 1]) + first[middle + 1 :], *chunks[1:]),
        "cut": (first[:-1], *chunks[1:]),
        "empty": (b"", *chunks[1:]),
        "missing": tuple(chunks[:-1]),
        "extra": (*chunks, first),
        "none": (),
    }[how]


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "missing", "extra", "none"])
def test_broken_ciphertexts_are_refused_before_the_round_is_spent(
    how: str, authority: LocalAuthority, run: Any, total_of: TotalOf, folder: Path
) -> None:
    uploads = run.uploads(1)
    request, chunks = run.request(1, uploads)
    damaged = broken(chunks, how)
    assert refusal(authority, request, damaged) == Refusal.MALFORMED
    announced = run.request(1, uploads, as_sum(run, damaged, 3))
    if how == "flipped":
        # It may still be a ciphertext: of something else, or of the same with more noise.
        try:
            assert (authority.release(*announced).values == total_of(uploads)).all()
        except ReleaseRefused as error:
            assert Refusal.of(error) in (Refusal.MALFORMED, Refusal.PROOF)
    else:
        assert refusal(authority, *announced) == Refusal.MALFORMED
        assert (authority.release(request, chunks).values == total_of(uploads)).all()
    assert isinstance(decisions(folder)[0], Refused)


def test_a_ciphertext_under_another_key_is_not_released(
    authority: LocalAuthority, run: Any, open_run: Callable[..., Any]
) -> None:
    other = open_run(authority, authority.verify_key, "run-2")
    uploads = run.uploads(1)
    foreign = as_sum(run, other.add(other.uploads(1)).chunks, 3)
    assert refusal(authority, *run.request(1, uploads, foreign)) in (
        Refusal.PROOF,
        Refusal.MALFORMED,
    )
    assert refusal(authority, *other.request(1, uploads, run.add(uploads))) == (
        Refusal.FOREIGN_RECEIPT
    )


def test_ckks_sums_need_an_owner_who_trusts_the_server(
    tmp_path: Path, devices: Any, open_run: Callable[..., Any], total_of: TotalOf
) -> None:
    parameters = derive_parameters(scheme="ckks", contributors=5, value_bound=100, length=300)
    keys = [device.keys for device in devices]
    with LocalAuthority(tmp_path / "strict") as strict:
        strict.enrolments.approve(keys)
        with pytest.raises(ReleaseRefused, match="cannot be verified"):
            open_run(strict, strict.verify_key, parameters=parameters)
    with LocalAuthority(tmp_path / "lax", accept_untagged=True) as lax:
        lax.enrolments.approve(keys)
        run = open_run(lax, lax.verify_key, parameters=parameters)
        assert not run.opening.admissions[devices[0].name].is_tagged
        uploads = run.uploads(1)
        assert (lax.release(*run.request(1, uploads)).values == total_of(uploads)).all()
        left_out = run.request(2, uploads := run.uploads(2), one_left_out(run, uploads))
        assert refusal(lax, *left_out) == Refusal.PROOF
